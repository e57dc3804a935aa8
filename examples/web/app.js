import {Classifier} from './classifier.js';
import {digitValues, pictureValues} from './inputs.js';

const INK = '#7ff0cf', PEN = 28;

// A network on the page: its files, its scores as bars, what it was last asked.
class Panel {
  constructor(id, entry) {
    this.section = document.getElementById(id);
    this.entry = entry;
    this.classifiers = {};
    this.rows = entry.labels.map((label) => this.addRow(label));
  }

  addRow(label) {
    const row = document.createElement('li');
    row.innerHTML = '<span></span><div class="trough"><div class="bar"></div></div><span class="share"></span>';
    row.firstChild.textContent = label;
    this.section.querySelector('.scores').append(row);
    return row;
  }

  classifier() {
    const bits = document.querySelector('#bits input:checked').value;
    this.classifiers[bits] ??= Classifier.load(this.entry.files[bits].path);
    return this.classifiers[bits].then((classifier) => ({classifier, file: this.entry.files[bits]}));
  }

  // Ask the network; null empties the bars.
  async show(values) {
    this.values = values;
    const {classifier, file} = await this.classifier();
    const scores = values && await classifier.run(values);
    if (values !== this.values) return;  // asked something else meanwhile
    this.scores = scores;
    const best = scores ? scores.indexOf(Math.max(...scores)) : -1;
    this.rows.forEach((row, at) => {
      row.classList.toggle('best', at === best);
      row.querySelector('.bar').style.width = scores ? `${100 * scores[at]}%` : 0;
      row.querySelector('.share').textContent = scores ? `${Math.round(100 * scores[at])}\u00a0%` : '';
    });
    const time = values ? `, ${(await classifier.time(values)).toPrecision(2)}\u00a0ms a run` : '';
    const [right, inFloat] = [file, this.entry].map(({accuracy}) => `${(100 * accuracy).toFixed(1)}\u00a0%`);
    this.section.querySelector('.facts').textContent =
        `${kilobytes(file.download)} to download, ${kilobytes(file.bytes)} unpacked${time}. ` +
        `${right} of test samples right, ${inFloat} in float.`;
  }
}

function kilobytes(bytes) {
  return `${(bytes / 1000).toFixed(0)}\u00a0kB`;
}

function startDrawing(panel) {
  const canvas = document.getElementById('canvas');
  const pen = canvas.getContext('2d', {willReadFrequently: true});
  Object.assign(pen, {strokeStyle: INK, lineWidth: PEN, lineCap: 'round', lineJoin: 'round'});
  const place = ({offsetX, offsetY}) => [offsetX, offsetY].map((value) => value * canvas.width / canvas.clientWidth);
  let last = null;
  const draw = (event) => {
    if (!last) return;
    const next = place(event);
    pen.beginPath();
    pen.moveTo(...last);
    pen.lineTo(...next);
    pen.stroke();
    last = next;
  };
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    draw(event);
  });
  canvas.addEventListener('pointermove', draw);
  const lift = () => {
    if (last) guarded(() => panel.show(digitValues(canvas)));
    last = null;
  };
  canvas.addEventListener('pointerup', lift);
  canvas.addEventListener('pointercancel', lift);
  document.getElementById('clear').addEventListener('click', () => {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    guarded(() => panel.show(null));
  });
}

function startPictures(panel) {
  const picture = document.getElementById('picture');
  const choose = (url, pressed) => guarded(async () => {
    picture.src = url;
    await picture.decode();
    document.querySelectorAll('#samples button').forEach((it) => it.setAttribute('aria-pressed', it === pressed));
    const bitmap = await createImageBitmap(picture);
    await panel.show(pictureValues(bitmap, panel.entry.size));
  });
  const buttons = panel.entry.samples.map(({path, label}) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.innerHTML = '<img>';
    Object.assign(button.firstChild, {src: path, alt: label});
    button.addEventListener('click', () => choose(path, button));
    document.getElementById('samples').append(button);
    return button;
  });
  document.getElementById('file').addEventListener('change', ({target}) => {
    if (target.files.length) choose(URL.createObjectURL(target.files[0]), null);
  });
  return choose(panel.entry.samples[0].path, buttons[0]);
}

async function guarded(job) {
  const problem = document.getElementById('problem');
  try {
    problem.hidden = true;
    return await job();
  } catch (error) {
    problem.textContent = `${error.message ?? error}`;
    problem.hidden = false;
    throw error;
  }
}

async function start() {
  const response = await fetch('models/models.json');
  if (!response.ok) throw new Error('There are no networks yet: run "make demo-web"');
  const entries = await response.json();
  const panels = {digits: new Panel('digits', entries.digits), shapes: new Panel('shapes', entries.shapes)};
  startDrawing(panels.digits);
  document.getElementById('bits').addEventListener('change', () => {
    for (const panel of Object.values(panels)) guarded(() => panel.show(panel.values ?? null));
  });
  await Promise.all([panels.digits.show(null), startPictures(panels.shapes)]);
  return panels;
}

// For tests: the panels once everything is there.
window.ready = guarded(start);
