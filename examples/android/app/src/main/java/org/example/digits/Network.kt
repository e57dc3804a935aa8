package org.example.digits

import android.content.res.AssetManager
import org.json.JSONObject

/** What `network.json` says, which `python -m examples.android.build` writes beside the files. */
class Network(assets: AssetManager) {
    private val json = JSONObject(assets.open("network.json").bufferedReader().use { it.readText() })

    val labels = List(json.getJSONArray("labels").length()) { json.getJSONArray("labels").getString(it) }
    val pictures = List(json.getJSONArray("pictures").length()) { json.getJSONArray("pictures").getString(it) }

    val preprocessing = json.getJSONObject("preprocessing").let {
        Preprocessing(
            it.getInt("height"),
            it.getInt("width"),
            it.getInt("channels"),
            it.getDouble("factor").toFloat(),
            it.getDouble("offset").toFloat(),
        )
    }

    /** The [end] (`input` or `output`) of a file; one of floats has no scale. */
    fun end(fileName: String, end: String): End {
        val found = json.getJSONObject("files").getJSONObject(fileName).getJSONObject(end)
        return End(found.optDouble("scale", 0.0).toFloat(), found.optInt("zero_point", 0))
    }
}
