/** The blurred placeholder of a picture (https://blurha.sh), as an address that needs no request. */

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~";
const WIDTH = 16; // The bytes of a row of a bitmap are a multiple of 4.
const HEIGHT = 12;
const HEAD_BYTES = 54;

/**
 * A small bitmap as a `data:` address; empty if the hash is damaged. The browser enlarges it smoothly.
 * @param {string} hash
 */
export function placeholder(hash) {
  const numberAt = (/** @type {number} */ start, /** @type {number} */ length) => {
    let number = 0;
    for (const digit of hash.slice(start, start + length)) number = number * 83 + DIGITS.indexOf(digit);
    return number;
  };
  const size = numberAt(0, 1);
  const columns = (size % 9) + 1;
  const rows = Math.floor(size / 9) + 1;
  if (hash.length !== 4 + 2 * columns * rows) return "";
  const average = numberAt(2, 4);
  const maximum = (numberAt(1, 1) + 1) / 166;
  const colours = [[average >> 16, (average >> 8) & 255, average & 255].map(toLinear)];
  for (let index = 1; index < columns * rows; index++) {
    const number = numberAt(4 + 2 * index, 2);
    const levels = [Math.floor(number / 361), Math.floor(number / 19) % 19, number % 19];
    colours.push(levels.map((level) => (Math.sign(level - 9) * (level - 9) ** 2 * maximum) / 81));
  }
  const bytes = new Uint8Array(HEAD_BYTES + 3 * WIDTH * HEIGHT);
  writeHead(new DataView(bytes.buffer));
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) {
      const sums = [0, 0, 0];
      colours.forEach((colour, index) => {
        const across = Math.cos((Math.PI * (index % columns) * (x + 0.5)) / WIDTH);
        const down = Math.cos((Math.PI * Math.floor(index / columns) * (y + 0.5)) / HEIGHT);
        for (let channel = 0; channel < 3; channel++) sums[channel] += colour[channel] * across * down;
      });
      // Bitmaps begin with the lowest row, and have blue first.
      bytes.set(sums.reverse().map(toByte), HEAD_BYTES + 3 * ((HEIGHT - 1 - y) * WIDTH + x));
    }
  }
  return `data:image/bmp;base64,${btoa(String.fromCharCode(...bytes))}`;
}

/** @param {DataView} view */
function writeHead(view) {
  view.setUint16(0, 0x424d); // "BM".
  view.setUint32(2, view.byteLength, true);
  view.setUint32(10, HEAD_BYTES, true);
  view.setUint32(14, 40, true); // Bytes of the rest of the head.
  view.setInt32(18, WIDTH, true);
  view.setInt32(22, HEIGHT, true);
  view.setUint16(26, 1, true); // Planes.
  view.setUint16(28, 24, true); // Bits of a pixel.
}

/** @param {number} byte of sRGB */
const toLinear = (byte) => (byte <= 10 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4);

/** @param {number} linear */
function toByte(linear) {
  const value = Math.max(0, Math.min(1, linear));
  return Math.round(255 * (value <= 0.0031308 ? value * 12.92 : 1.055 * value ** (1 / 2.4) - 0.055));
}
