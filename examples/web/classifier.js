// A quantized network in LiteRT.js, on WebAssembly: float values in, scores out.

import {loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';

const runtime = loadLiteRt('./node_modules/@litertjs/core/wasm/');

// Times of the last runs that the shown one is the median of.
const RUNS = 15;

// The file, unpacked here, so that any web server will do.
async function unpacked(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} is not there (${response.status}): run "make demo-web"`);
  const stream = response.body.pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export class Classifier {
  static async load(path) {
    const content = await unpacked(path);
    await runtime;
    return new Classifier(await loadAndCompile(content, {accelerator: 'wasm'}));
  }

  constructor(model) {
    this.model = model;
    this.shape = model.getInputDetails()[0].shape;
  }

  // Scores of one sample: float32 values in the order of the input [1, height, width, channels].
  async run(values) {
    const input = new Tensor(values, this.shape);
    const [output] = await this.model.run(input);
    const scores = Array.from(output.toTypedArray());
    input.delete();
    output.delete();
    return scores;
  }

  // Milliseconds of a run.
  async time(values) {
    const times = [];
    for (let run = 0; run < RUNS; run++) {
      const start = performance.now();
      await this.run(values);
      times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[RUNS >> 1];
  }
}
