package org.example.digits

import kotlin.math.round

/**
 * An input or output of a file. A file with int8 ends takes and gives codes: value = (code - zeroPoint) * scale.
 *
 * @property scale real value of one step of a code; 0 for an end of floats.
 */
class End(val scale: Float, val zeroPoint: Int) {
    val isFloat get() = scale == 0f

    /** Codes of real values, rounded to nearest, ties to even. */
    fun toCodes(values: FloatArray) = ByteArray(values.size) { at ->
        (round(values[at] / scale) + zeroPoint).coerceIn(-128f, 127f).toInt().toByte()
    }

    fun toValues(codes: ByteArray) = FloatArray(codes.size) { at -> (codes[at] - zeroPoint) * scale }
}
