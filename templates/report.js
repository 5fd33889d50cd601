
"use strict";
// One cursor on every chart of the time axis: pointer, touch or arrow keys. The page is complete
// without it; texts only ever become text nodes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const bins = Math.ceil(data.span / data.bin);
  const plots = [];
  let at = null;

  const digits = (v) => {
    const size = Math.abs(v);
    const places = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
    return Number(v.toFixed(places)).toLocaleString("en-US", { maximumFractionDigits: 3 });
  };
  const text = (v, unit) => {
    if (v === null || v === undefined) return "–";
    if (unit !== "ms") return digits(v) + (unit === "/s" ? " /s" : "");
    return v < 1 ? digits(v * 1000) + " µs" : v < 999.5 ? digits(v) + " ms" : digits(v / 1000) + " s";
  };
  const make = (tag, name, content) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (content !== undefined) element.textContent = content;
    return element;
  };

  function fill(chart) {
    const from = at * data.bin;
    const to = Math.min(from + data.bin, data.span);
    tip.replaceChildren(make("b", "", `+${digits(from)} to +${digits(to)} s`));
    for (const [label, name, values] of chart.series) {
      const row = make("div");
      row.append(make("i", "key " + name), make("span", "", label), make("span", "", text(values[at], chart.unit)));
      tip.append(row);
    }
  }
  function show(plot, x, y) {
    const share = (at + 0.5) * data.bin / data.span;
    for (const other of plots) {
      other.line.hidden = false;
      other.line.style.left = Math.min(share, 1) * 100 + "%";
    }
    const chart = data.charts[plot.id];
    tip.hidden = !chart;
    if (!chart) return;
    fill(chart);
    const box = tip.getBoundingClientRect();
    const left = x + 18 + box.width > innerWidth ? x - box.width - 18 : x + 18;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, Math.min(y + 14, innerHeight - box.height - 4)) + "px";
  }
  function hide() {
    tip.hidden = true;
    for (const plot of plots) plot.line.hidden = true;
  }

  for (const figure of document.querySelectorAll("figure.chart")) {
    if (figure.id !== "strip" && figure.id.startsWith("spectrum")) continue;
    const area = figure.querySelector(".plot");
    const line = make("div", "cursor");
    line.hidden = true;
    area.append(line);
    const plot = { id: figure.id, area, line };
    plots.push(plot);
    area.addEventListener("pointermove", (event) => {
      const box = area.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      at = Math.max(0, Math.min(bins - 1, Math.floor(share * data.span / data.bin)));
      show(plot, event.clientX, event.clientY);
    });
    area.addEventListener("pointerleave", hide);
    if (!data.charts[figure.id]) continue;
    area.tabIndex = 0;
    area.setAttribute("role", "group");
    area.setAttribute("aria-label", "Values of this chart; left and right move through time");
    area.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
      if (event.key === "Escape") return hide();
      if (!step) return;
      event.preventDefault();
      at = Math.max(0, Math.min(bins - 1, (at ?? -1) + step));
      const box = area.getBoundingClientRect();
      show(plot, box.left + box.width * (at + 0.5) * data.bin / data.span, box.top + 20);
    });
    area.addEventListener("blur", hide);
  }
  // A link to something inside a closed part opens it; printing opens everything.
  const openTo = (element) => {
    for (let e = element; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
  };
  const follow = () => openTo(document.getElementById(decodeURIComponent(location.hash.slice(1))));
  addEventListener("hashchange", follow);
  follow();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const part of closed) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of closed) part.open = false; });
})();
