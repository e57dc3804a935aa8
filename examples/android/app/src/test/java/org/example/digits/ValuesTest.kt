package org.example.digits

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Test

class ValuesTest {
    @Test
    fun codesAreRoundedToEvenAndClipped() {
        val end = End(0.5f, -3)
        val codes = end.toCodes(floatArrayOf(0f, 0.25f, 0.75f, -0.6f, 1000f, -1000f))
        assertArrayEquals(byteArrayOf(-3, -3, -1, -4, 127, -128), codes)
        assertArrayEquals(floatArrayOf(0f, 0f, 1f, -0.5f, 65f, -62.5f), end.toValues(codes), 0f)
    }

    @Test
    fun pixelsBecomeValues() {
        val pixels = intArrayOf(0xff000000.toInt(), 0xff0000ff.toInt(), 0xffffffff.toInt(), 0xff804020.toInt())
        val color = Preprocessing(2, 2, 3, 1 / 127.5f, -1f).toValues(pixels)
        assertEquals(12, color.size)
        assertArrayEquals(floatArrayOf(-1f, -1f, 1f), color.copyOfRange(3, 6), 1e-6f)
        val gray = Preprocessing(2, 2, 1, 1f, 0f).toValues(pixels)
        assertArrayEquals(floatArrayOf(0f, 85f, 255f, 74f), gray, 0f)
    }
}
