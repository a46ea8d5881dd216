// Charts over time: uPlot, with a legend, a readout and arrow keys of our own.

import uPlot from "./vendor/uPlot.esm.js";
import { element, setText } from "./dom.js";
import { compact, tickFormat, timeFormat } from "./format.js";

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class TimeChart {
  /** `label` names it, `format` writes a value, `stacked` piles the lines up. */
  constructor(host, { label, format, stacked = false, axisFormat = compact, empty = "Nothing in this time." }) {
    Object.assign(this, { host, label, format, stacked, axisFormat });
    this.plot = element("div", { className: "plot", tabIndex: 0 });
    this.plot.setAttribute("role", "img");
    this.empty = element("p", { className: "empty", hidden: true }, empty);
    this.legend = element("ul", { className: "legend", aria: { hidden: "true" } });
    this.readout = element("p", { className: "hidden", role: "status" });
    host.replaceChildren(this.legend, this.plot, this.readout);
    this.plot.append(this.empty);
    this.plot.addEventListener("keydown", (event) => this.#key(event));
    this.plot.addEventListener("blur", () => this.#point(null));
    this.width = 0;
    new ResizeObserver(() => this.#resize()).observe(this.plot);
    addEventListener("themechange", () => this.#draw(true));
  }

  /** `lines` are {label, values, color: 1…6}; times are epoch milliseconds. */
  update(times, lines, summary) {
    this.times = times;
    this.lines = lines;
    this.plot.setAttribute("aria-label", `${this.label}: ${summary}. Left and right arrow keys read values.`);
    this.empty.hidden = times.length > 0 && lines.some((line) => line.values.some((value) => value !== null));
    this.#draw(false);
  }

  #data() {
    if (!this.stacked) return [this.times, ...this.lines.map((line) => line.values)];
    // The highest pile first: each next one is painted over it.
    let pile = this.times.map(() => 0);
    const piles = this.lines.map((line) => (pile = pile.map((below, at) => below + (line.values[at] ?? 0))));
    return [this.times, ...piles.reverse()];
  }

  #draw(anew) {
    if (!this.times || !this.plot.clientWidth) return;
    const shape = JSON.stringify(this.lines.map((line) => [line.label, line.color]));
    if (anew || !this.chart || shape !== this.shape) {
      const at = this.chart?.cursor.idx ?? null;
      this.chart?.destroy();
      this.shape = shape;
      this.chart = new uPlot(this.#options(), this.#data(), this.plot);
      if (at !== null) this.#point(at);
    } else {
      this.chart.setData(this.#data());
    }
    this.#showValues(this.chart.cursor.idx ?? null);
  }

  #options() {
    const drawn = this.stacked ? [...this.lines].reverse() : this.lines;
    const axis = { stroke: style("--muted"), grid: { stroke: style("--grid"), width: 1 }, ticks: { show: false }, font: `11px ${style("--font")}` };
    return {
      width: this.plot.clientWidth,
      height: this.plot.clientHeight,
      ms: 1,
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      // Half of a time of day stands beyond the last tick.
      padding: [8, 20, 0, 0],
      scales: { y: { range: (_chart, _low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, size: 26, space: 70, grid: { show: false }, values: (_chart, ticks) => ticks.map(tickFormat(this.#span())) },
        { ...axis, size: 48, space: 34, values: (_chart, ticks) => ticks.map((tick) => this.axisFormat(tick)) },
      ],
      series: [{}, ...drawn.map((line) => this.#series(line))],
      hooks: { setCursor: [(chart) => this.#showValues(chart.cursor.idx ?? null)] },
    };
  }

  #series({ label, color, faint }) {
    const stroke = style(`--series-${color}`);
    return {
      label,
      stroke,
      width: 1.5,
      fill: this.stacked ? style(`--fill-${color}`) : faint ? undefined : `${stroke}1f`,
      spanGaps: true,
      points: { show: false },
    };
  }

  #span() {
    return this.times.length > 1 ? this.times.at(-1) - this.times[0] : 0;
  }

  #showValues(at) {
    const last = this.times.length - 1;
    const index = at ?? last;
    const moment = at === null ? "" : timeFormat(this.#span())(this.times[index]);
    const entries = this.lines.map((line) => ({ ...line, text: this.#value(line, index) }));
    while (this.legend.children.length > entries.length + 1) this.legend.lastElementChild.remove();
    while (this.legend.children.length < entries.length + 1) {
      this.legend.append(element("li", {}, element("i"), element("span"), element("b")));
    }
    entries.forEach(({ label, color, text }, number) => {
      const [swatch, name, value] = this.legend.children[number].children;
      swatch.className = `swatch series-${color}`;
      setText(name, label);
      name.title = label;
      setText(value, text);
    });
    const [swatch, name, value] = this.legend.lastElementChild.children;
    swatch.className = "";
    setText(name, moment);
    setText(value, "");
  }

  #value(line, index) {
    const value = line.values[index];
    return value === null || value === undefined ? "–" : this.format(value);
  }

  #key(event) {
    const last = this.times.length - 1;
    const now = this.chart?.cursor.idx ?? last + 1;
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, Escape: null }[event.key];
    if (next === undefined || !this.chart || last < 0) return;
    event.preventDefault();
    this.#point(next === null ? null : Math.min(last, Math.max(0, next)));
  }

  #point(index) {
    if (!this.chart) return;
    const left = index === null ? -10 : this.chart.valToPos(this.times[index], "x");
    this.chart.setCursor({ left, top: index === null ? -10 : 0 });
    this.#showValues(index);
    if (index === null) return;
    const values = this.lines.map((line) => `${line.label} ${this.#value(line, index)}`);
    setText(this.readout, `${timeFormat(this.#span())(this.times[index])}: ${values.join(", ")}`);
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (!width || width === this.width) return;
    this.width = width;
    if (this.chart) this.chart.setSize({ width, height });
    else this.#draw(true);
  }
}
