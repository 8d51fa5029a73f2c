/** Numbers and times for people, and what a link names. In the browser. */

const UNITS = ['', 'k', 'M', 'G', 'T'];

/** Three digits and a unit of powers of 1,000: 12.3M. */
export function short(value: number): string {
  if (!Number.isFinite(value) || value <= 0) return '0';
  const power = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log10(value) / 3)));
  const scaled = value / 1000 ** power;
  const digits = power === 0 && Number.isInteger(value) ? 0 : Math.max(0, 2 - Math.floor(Math.log10(scaled)));
  return `${scaled.toFixed(Math.min(digits, 2))}${UNITS[power]}`;
}

const GROUPED = new Intl.NumberFormat('en');
export const grouped = (value: number): string => GROUPED.format(value);

export function duration(seconds: number): string {
  const days = Math.floor(seconds / 86_400);
  const [hours, minutes, rest] = [(seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60].map((part) =>
    String(Math.floor(part)).padStart(2, '0'),
  );
  return `${days > 0 ? `${days} d ` : ''}${hours}:${minutes}:${rest}`;
}

export const percent = (share: number): string => `${Math.round(100 * share)} %`;

/** `#ports/vm0` is the view of that name, and what it is about; whatever else somebody wrote is the first of the views. */
export function placeOf(hash: string, views: readonly string[]): readonly [name: string, rest: string] {
  const [name = '', ...rest] = hash.replace(/^#/, '').split('/');
  if (!views.includes(name)) return [views[0], ''];
  try {
    return [name, decodeURIComponent(rest.join('/'))];
  } catch {
    return [name, ''];
  }
}
