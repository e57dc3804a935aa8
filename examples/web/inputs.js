// What is drawn or chosen, as the networks were trained on it.

// Blocks of a digit along each side, and pixels of a block along each side.
const BLOCKS = 8, FINE = 4;

// A drawing as 8 x 8 shares of ink, 0 to 1: cut out, made 32 pixels high, and counted in blocks of 4 x 4 pixels, as the
// data that the network knows were made. Null for an empty drawing.
export function digitValues(canvas) {
  const box = boxOfInk(canvas);
  if (!box) return null;
  const side = BLOCKS * FINE;
  const scale = side / Math.max(box.width, box.height);
  const [width, height] = [box.width * scale, box.height * scale];
  const small = new OffscreenCanvas(side, side).getContext('2d', {willReadFrequently: true});
  small.imageSmoothingQuality = 'high';
  small.drawImage(canvas, box.x, box.y, box.width, box.height, (side - width) / 2, (side - height) / 2, width, height);
  const {data} = small.getImageData(0, 0, side, side);
  const values = new Float32Array(BLOCKS * BLOCKS);
  for (let pixel = 0; pixel < side * side; pixel++) {
    const block = (pixel / side / FINE | 0) * BLOCKS + (pixel % side / FINE | 0);
    values[block] += (data[4 * pixel + 3] > 127) / FINE ** 2;
  }
  return values;
}

function boxOfInk(canvas) {
  const {width, height} = canvas;
  const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (data[4 * (y * width + x) + 3] <= 127) continue;
      [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
    }
  }
  return right < 0 ? null : {x: left, y: top, width: right - left + 1, height: bottom - top + 1};
}

// The middle square of a picture as size x size RGB values, -1 to 1.
export function pictureValues(picture, size) {
  const side = Math.min(picture.width, picture.height);
  const small = new OffscreenCanvas(size, size).getContext('2d');
  small.imageSmoothingQuality = 'high';
  const corner = [(picture.width - side) / 2, (picture.height - side) / 2];
  small.drawImage(picture, ...corner, side, side, 0, 0, size, size);
  const {data} = small.getImageData(0, 0, size, size);
  return Float32Array.from({length: size * size * 3}, (_, at) => data[(at / 3 | 0) * 4 + at % 3] / 127.5 - 1);
}
