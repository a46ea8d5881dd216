// Numbers, sizes and times as people read them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minuteTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayTime = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const dayOnly = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

const DAY = 86_400_000;

export const count = (value) => whole.format(value);
export const rate = (value) => (value < 100 ? tenth : whole).format(value);
export const compact = (value) => (Math.abs(value) < 1000 ? tenth : short).format(value);
export const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${tenth.format(share * 100)} %`);
export const clock = (ms) => clockTime.format(ms);

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  return `${tenth.format(value / 1000 ** power)} ${units[power]}`;
}

/** A duration in milliseconds. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${whole.format(ms)} ms`;
  if (ms < 60_000) return `${tenth.format(ms / 1000)} s`;
  if (ms < 3_600_000) return `${whole.format(Math.floor(ms / 60_000))} min ${whole.format(Math.floor((ms % 60_000) / 1000))} s`;
  if (ms < 2 * DAY) return `${whole.format(Math.floor(ms / 3_600_000))} h ${whole.format(Math.floor((ms % 3_600_000) / 60_000))} min`;
  return `${whole.format(ms / DAY)} days`;
}

/** Times of an axis or a readout, as exact as the span that is shown needs. */
export function timeFormat(spanMs) {
  if (spanMs <= 2 * 3_600_000) return (ms) => clockTime.format(ms);
  if (spanMs <= 2 * DAY) return (ms) => minuteTime.format(ms);
  if (spanMs <= 60 * DAY) return (ms) => dayTime.format(ms);
  return (ms) => dayOnly.format(ms);
}

/** The same for the ticks of an axis, where room is short. */
export function tickFormat(spanMs) {
  if (spanMs <= 2 * 60_000) return (ms) => clockTime.format(ms);
  if (spanMs <= 2 * DAY) return (ms) => minuteTime.format(ms);
  return (ms) => (spanMs <= 300 * DAY ? dayOnly.format(ms).slice(0, -5) : dayOnly.format(ms));
}
