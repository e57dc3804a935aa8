package org.example.digits

/**
 * What the network was trained on: a picture of [height] by [width] with [channels] (1: gray, 3: red, green, blue), each
 * channel as factor * (0..255) + offset.
 */
class Preprocessing(
    val height: Int,
    val width: Int,
    val channels: Int,
    private val factor: Float,
    private val offset: Float,
) {
    /** Values of pixels as Android's bitmaps have them (0xAARRGGBB, row by row), in the order of the input. */
    fun toValues(pixels: IntArray): FloatArray {
        require(pixels.size == height * width) { "${pixels.size} pixels, not ${height * width}" }
        return FloatArray(pixels.size * channels) { at ->
            val pixel = pixels[at / channels]
            val level = if (channels == 1) gray(pixel) else (pixel shr (16 - 8 * (at % channels))) and 0xff
            factor * level + offset
        }
    }

    /** The mean of red, green and blue, which are equal in gray pictures. */
    private fun gray(pixel: Int) = ((pixel shr 16 and 0xff) + (pixel shr 8 and 0xff) + (pixel and 0xff)) / 3
}
