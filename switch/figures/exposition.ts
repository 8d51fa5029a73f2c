/**
 * Figures in Prometheus' text format, version 0.0.4, in pieces: of a thousand ports it is megabytes, and whoever sends it lets the
 * event loop turn between any two. By hand, because the format is two comments and a line a sample, and a library would keep a second
 * copy of every counter. Main thread.
 */
import { piecesStream } from '../control/pieces.ts';
import type { FiguresSnapshot, Labels } from './snapshot.ts';
import { FIGURES, type Figure, type HistogramSample, metricName, type Sample } from './table.ts';

export const EXPOSITION_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
/** Of a piece, about. */
const PIECE_CHARS = 2 ** 16;

export function* exposition(all: FiguresSnapshot): Generator<string> {
  const texts: LabelTexts = new Map();
  let piece = '';
  for (const figure of FIGURES) {
    const name = metricName(figure);
    piece += `# HELP ${name} ${figure.help}\n# TYPE ${name} ${figure.type}\n`;
    for (const lines of linesOf(figure, name, all, texts)) {
      piece += lines;
      if (piece.length < PIECE_CHARS) continue;
      yield piece;
      piece = '';
    }
  }
  yield piece;
}

/** Labels as text; those of a port are in many lines. */
type LabelTexts = Map<Labels, string>;

function* linesOf(figure: Figure, name: string, all: FiguresSnapshot, texts: LabelTexts): Generator<string> {
  if (figure.type === 'histogram')
    for (const sample of figure.samples(all))
      yield histogramLines(name, sample, labelText(sample.labels, texts));
  else
    for (const sample of figure.samples(all)) yield sampleLine(name, sample, labelText(sample.labels, texts));
}

function sampleLine(name: string, { label, value }: Sample, labels: string): string {
  if (label === undefined) return labels === '' ? `${name} ${value}\n` : `${name}{${labels}} ${value}\n`;
  const last = pairText(label[0], label[1]);
  return `${name}{${labels === '' ? last : `${labels},${last}`}} ${value}\n`;
}

function histogramLines(name: string, { bounds, counts, sum }: HistogramSample, labels: string): string {
  let text = '';
  let upTo = 0;
  for (let at = 0; at < counts.length; at++) {
    upTo += counts[at];
    text += `${name}_bucket{${labels},le="${at < bounds.length ? bounds[at] : '+Inf'}"} ${upTo}\n`;
  }
  return `${text}${name}_sum{${labels}} ${sum}\n${name}_count{${labels}} ${upTo}\n`;
}

function labelText(labels: Labels, texts: LabelTexts): string {
  const known = texts.get(labels);
  if (known !== undefined) return known;
  const text = Object.entries(labels)
    .map(([name, value]) => pairText(name, value))
    .join(',');
  texts.set(labels, text);
  return text;
}

function pairText(name: string, value: string): string {
  return `${name}="${value.replace(/[\\"\n]/g, (char) => (char === '\n' ? '\\n' : `\\${char}`))}"`;
}

/** As the body of an answer. */
export function expositionStream(all: FiguresSnapshot): ReadableStream<Uint8Array> {
  return piecesStream(exposition(all));
}
