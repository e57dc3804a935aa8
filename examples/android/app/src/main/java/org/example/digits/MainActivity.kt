package org.example.digits

import android.app.Activity
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.os.Bundle
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import com.google.ai.edge.litert.Accelerator

/** Classifies the pictures of the assets with each file, and shows the label and where the file ran. */
class MainActivity : Activity() {
    private lateinit var network: Network

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        network = Network(assets)
        val list = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL }
        setContentView(ScrollView(this).apply { addView(list) })
        Thread {
            val texts = FILES.associateWith { classify(it) }
            runOnUiThread { show(list, texts) }
        }.start()
    }

    /** A line for each picture. */
    private fun classify(fileName: String): List<String> {
        val (input, output) = listOf("input", "output").map { network.end(fileName, it) }
        return Classifier(assets, fileName, input, output, ACCELERATORS).use { classifier ->
            network.pictures.map { picture ->
                val scores = classifier.scores(network.preprocessing.toValues(pixels(picture)))
                val best = scores.indices.maxBy { scores[it] }
                "%s: %s (%.2f), on %s".format(fileName, network.labels[best], scores[best], classifier.accelerator)
            }
        }
    }

    private fun pixels(picture: String): IntArray {
        val height = network.preprocessing.height
        val width = network.preprocessing.width
        val scaled = Bitmap.createScaledBitmap(bitmap(picture), width, height, true)
        return IntArray(height * width).also { scaled.getPixels(it, 0, width, 0, 0, width, height) }
    }

    private fun bitmap(picture: String): Bitmap = assets.open(picture).use { BitmapFactory.decodeStream(it) }

    private fun show(list: LinearLayout, texts: Map<String, List<String>>) {
        network.pictures.forEachIndexed { number, picture ->
            val image = ImageView(this).apply {
                setImageBitmap(Bitmap.createScaledBitmap(bitmap(picture), 240, 240, false))
            }
            list.addView(image, LinearLayout.LayoutParams(240, 240))
            list.addView(TextView(this).apply { text = texts.values.joinToString("\n") { it[number] } })
        }
    }

    private companion object {
        val FILES = listOf("float_ends.tflite", "int8_ends.tflite")

        /** In the order in which they are tried. */
        val ACCELERATORS = listOf(Accelerator.GPU, Accelerator.CPU)
    }
}
