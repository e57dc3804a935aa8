package org.example.digits

import android.content.res.AssetManager
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel

/** Runs a model with one float input and one float output from the app's assets. */
class Classifier(assets: AssetManager, fileName: String) : AutoCloseable {
    private val model = CompiledModel.create(assets, fileName, CompiledModel.Options(Accelerator.CPU))
    private val inputs = model.createInputBuffers()
    private val outputs = model.createOutputBuffers()

    /** One score for each class; [input] holds one sample in row-major order, without the batch axis. */
    fun scores(input: FloatArray): FloatArray {
        inputs[0].writeFloat(input)
        model.run(inputs, outputs)
        return outputs[0].readFloat()
    }

    override fun close() {
        inputs.forEach { it.close() }
        outputs.forEach { it.close() }
        model.close()
    }
}
