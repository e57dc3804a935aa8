package org.example.digits

import android.content.res.AssetManager
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException

/** Runs a file of the app's assets with one input and one output, on the first accelerator that takes it. */
class Classifier(
    assets: AssetManager,
    fileName: String,
    private val input: End,
    private val output: End,
    accelerators: List<Accelerator>,
) : AutoCloseable {
    private val compiled = compile(assets, fileName, accelerators)
    private val model = compiled.second
    private val inputs = model.createInputBuffers()
    private val outputs = model.createOutputBuffers()

    /** Where the file runs. */
    val accelerator: Accelerator = compiled.first

    /** A score for each class. [values] hold one sample in row-major order, without the batch axis. */
    fun scores(values: FloatArray): FloatArray {
        if (input.isFloat) inputs[0].writeFloat(values) else inputs[0].writeInt8(input.toCodes(values))
        model.run(inputs, outputs)
        return if (output.isFloat) outputs[0].readFloat() else output.toValues(outputs[0].readInt8())
    }

    override fun close() {
        inputs.forEach { it.close() }
        outputs.forEach { it.close() }
        model.close()
    }

    companion object {
        /** Each accelerator alone, so that a GPU that does not take the file is noticed. */
        private fun compile(
            assets: AssetManager,
            fileName: String,
            accelerators: List<Accelerator>,
        ): Pair<Accelerator, CompiledModel> {
            var problem: LiteRtException? = null
            for (accelerator in accelerators) {
                try {
                    return accelerator to CompiledModel.create(assets, fileName, CompiledModel.Options(accelerator))
                } catch (error: LiteRtException) {
                    problem = error
                }
            }
            throw IllegalArgumentException("no accelerator of $accelerators takes $fileName", problem)
        }
    }
}
