/** Numbers and spans of time in few letters, for people. */

const UNITS = ['', 'k', 'M', 'G', 'T', 'P'];
const DIGITS = 3;

/** Three digits that count, and a unit: 0, 7, 999, 1.23k, 45.6M. */
export function shortNumber(value: number): string {
  if (value === 0) return '0';
  if (value < 10)
    return value < 0.05 ? '<0.1' : value.toFixed(value < 9.95 && !Number.isInteger(value) ? 1 : 0);
  let power = 0;
  let scaled = value;
  // 999.6 would be rounded to four digits.
  while (scaled >= 999.5 && power + 1 < UNITS.length) {
    scaled /= 1000;
    power++;
  }
  const whole = scaled < 9.995 ? 1 : scaled < 99.95 ? 2 : 3;
  return `${scaled.toFixed(power === 0 ? 0 : Math.max(0, DIGITS - whole))}${UNITS[power]}`;
}

/** 45s, 12:05, 3:12:05, 2d 3:12:05. */
export function spanText(seconds: number): string {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole}s`;
  const two = (value: number): string => String(value).padStart(2, '0');
  const [s, m, h, d] = [
    whole % 60,
    Math.floor(whole / 60) % 60,
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 86_400),
  ];
  const clock = h === 0 && d === 0 ? `${m}:${two(s)}` : `${h}:${two(m)}:${two(s)}`;
  return d === 0 ? clock : `${d}d ${clock}`;
}
