// Runs .tflite files with LiteRT.js on one thread, and times them. Files and tensors come as base64.

import {loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';

const loaded = loadLiteRt('/examples/web/node_modules/@litertjs/core/wasm/');

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function compile(base64) {
  await loaded;
  return loadAndCompile(bytesOf(base64), {accelerator: 'wasm'});
}

// Scores of a file for each sample: one input, one output, both float32.
window.outputsOf = async (file, samples) => {
  const model = await compile(file);
  const shape = model.getInputDetails()[0].shape;
  const found = [];
  for (const sample of samples) {
    const input = new Tensor(new Float32Array(bytesOf(sample).buffer), shape);
    const [output] = await model.run(input);
    found.push(Array.from(output.toTypedArray()));
    input.delete();
    output.delete();
  }
  model.delete();
  return found;
};

// Milliseconds of one run of each file, the files taking turns: of each of several rounds the least, of those the
// median.
window.millisecondsOf = async (files, seconds, rounds) => {
  const runners = {};
  for (const [name, file] of Object.entries(files)) {
    const model = await compile(file);
    const inputs = model.getInputDetails().map(
        ({shape}) => new Tensor(Float32Array.from({length: shape.reduce((a, b) => a * b, 1)}, Math.random), shape));
    runners[name] = {model, inputs, calls: 1, least: []};
    await batch(runners[name]);
    runners[name].calls = Math.max(1, Math.round(1 / await batch(runners[name])));
  }
  for (let round = 0; round < rounds; round++) {
    const least = Object.fromEntries(Object.keys(runners).map((name) => [name, Infinity]));
    const until = performance.now() + 1000 * seconds * Object.keys(runners).length / rounds;
    for (let turns = 0; turns < 4 || performance.now() < until; turns++) {
      for (const [name, runner] of Object.entries(runners)) {
        least[name] = Math.min(least[name], await batch(runner) / runner.calls);
      }
    }
    for (const [name, runner] of Object.entries(runners)) runner.least.push(least[name]);
  }
  const found = {};
  for (const [name, {model, inputs, least}] of Object.entries(runners)) {
    found[name] = least.sort((a, b) => a - b)[least.length >> 1];
    inputs.forEach((tensor) => tensor.delete());
    model.delete();
  }
  return found;
};

async function batch({model, inputs, calls}) {
  const start = performance.now();
  for (let call = 0; call < calls; call++) {
    for (const tensor of await model.run(inputs)) tensor.delete();
  }
  return performance.now() - start;
}
