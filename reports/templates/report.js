"use strict";
// Inflates the charting library that travels in the page, draws one chart per metric, and redraws it
// when an order is chosen or the colour scheme changes. Everything drawn also stands in a table.
(async () => {
  const source = document.getElementById("charts");
  if (!source) return;
  const charts = JSON.parse(source.textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  async function loadLibrary() {
    const packed = document.getElementById("library").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const text = await new Response(stream).text();
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    await new Promise((resolve, reject) => {
      script.onload = resolve;
      script.onerror = () => reject(new Error("the charting library did not load"));
      document.head.append(script);
    });
    URL.revokeObjectURL(script.src);
  }

  // The library reads a little HTML in labels; names from the report must stay plain text.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const faded = (hex, alpha) =>
    `rgba(${[1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",")},${alpha})`;

  // A filled area between two curves, where both are known.
  function area(x, lower, upper, fill, group) {
    const known = x.map((_, i) => i).filter((i) => lower[i] !== null && upper[i] !== null);
    const back = [...known].reverse();
    return {
      x: [...known, ...back].map((i) => x[i]),
      y: [...known.map((i) => upper[i]), ...back.map((i) => lower[i])],
      type: "scatter", mode: "lines", fill: "toself", fillcolor: fill, line: { width: 0 },
      hoverinfo: "skip", showlegend: false, legendgroup: group,
    };
  }

  function traces(chart, chosen, narrow) {
    const drawn = [];
    chart.orders.forEach((entry, position) => {
      if (chosen !== "all" && Number(chosen) !== position) return;
      const alone = chosen !== "all" || chart.orders.length === 1;
      const ink = color(`--order-${position % 5}`);
      const { attacked, certified, estimates } = entry;
      // At budget 0 both curves start from the clean accuracy.
      const start = chart.clean !== null && entry.delta[0] > 0;
      const x = start ? [0, ...entry.delta] : entry.delta;
      const from = (values, first) => (start ? [first, ...values] : values);
      const group = `order ${position}`;
      drawn.push(area(x, from(certified.value, chart.clean), from(attacked.value, chart.clean),
        faded(ink, alone ? 0.10 : 0.07), group));
      if (alone) {
        drawn.push(area(entry.delta, attacked.low, attacked.high, faded(ink, 0.28), group));
        drawn.push(area(entry.delta, certified.low, certified.high, faded(ink, 0.28), group));
      }
      const dense = x.length > 40;
      for (const [side, values] of [["attacked", attacked], ["certified", certified]]) {
        const solid = side === "attacked";
        drawn.push({
          x, y: from(values.value, chart.clean), type: "scatter",
          mode: dense ? "lines" : "lines+markers", connectgaps: false, legendgroup: group,
          name: plain(`${narrow ? entry.order : entry.name}, ${side}`),
          customdata: from(values.label, chart.cleanLabel).map(plain),
          hovertemplate: `${plain(entry.name)} ${solid ? "≤" : "≥"} %{customdata} ${side}<extra></extra>`,
          line: { color: ink, width: solid ? 2.6 : 1.8 },
          marker: {
            size: 7, symbol: solid ? "circle" : "square",
            color: solid ? ink : color("--card"), line: { color: ink, width: 1.8 },
          },
        });
      }
      if (alone && estimates) drawn.push(...estimated(entry, estimates));
    });
    return drawn;
  }

  function estimated(entry, estimates) {
    const soft = color("--soft");
    const line = (y, name, dash) => ({
      x: entry.delta, y, type: "scatter", mode: "lines", name: `${name} (${plain(estimates.loss)})`,
      line: { color: soft, width: 1.6, dash }, hoverinfo: "skip",
    });
    const violated = entry.delta.map((_, i) => i).filter((i) => estimates.violated[i]);
    return [
      line(estimates.upper, "upper R<sup>u</sup>", "dot"),
      line(estimates.value, "lower R̃<sup>l</sup>, by value", "dash"),
      line(estimates.slope, "lower R̄<sup>l</sup>, by slope", "longdashdot"),
      {
        x: violated.map((i) => entry.delta[i]),
        y: violated.map((i) => Math.max(estimates.value[i] ?? 0, estimates.slope[i] ?? 0, 0)),
        type: "scatter", mode: "markers", name: "violated estimate", cliponaxis: false,
        marker: { symbol: "x", size: 10, color: color("--bad") }, hoverinfo: "skip",
      },
    ].filter((trace) => trace.x.length && trace.y.some((value) => value !== null));
  }

  function layout(chart, narrow) {
    const font = { family: getComputedStyle(document.body).fontFamily, color: color("--ink"), size: 13 };
    const axis = {
      color: color("--soft"), gridcolor: color("--line"), zerolinecolor: color("--line"),
      linecolor: color("--line"), ticks: "outside", tickcolor: color("--line"), automargin: true,
      title: { font: { color: color("--soft"), size: 13 }, standoff: 8 },
    };
    return {
      autosize: true, paper_bgcolor: color("--card"), plot_bgcolor: color("--card"),
      font,
      margin: { l: narrow ? 44 : 58, r: 14, t: 12, b: 44 },
      xaxis: {
        ...axis, rangemode: "tozero", ticksuffix: chart.suffix, nticks: narrow ? 5 : 10,
        title: { ...axis.title, text: "delta" }, unifiedhovertitle: { text: `delta %{x}${chart.suffix}` },
        spikecolor: color("--soft"), spikethickness: 1, spikedash: "dot",
      },
      yaxis: {
        ...axis, range: [0, 102], dtick: narrow ? 25 : 20, ticksuffix: narrow ? "" : " %", fixedrange: true,
        title: { ...axis.title, text: narrow ? "accuracy, %" : "accuracy" },
      },
      hovermode: "x unified",
      hoverlabel: { bgcolor: color("--card"), bordercolor: color("--line"), font },
      legend: { orientation: "h", x: 0, y: narrow ? -0.24 : -0.2, yanchor: "top", font: { size: 12.5 } },
      dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    };
  }

  function draw(figure) {
    const chart = charts[Number(figure.dataset.chart)];
    const plot = figure.querySelector(".plot");
    const chosen = figure.querySelector("input:checked")?.value ?? "all";
    const size = printing ? { width: 640, height: 400, autosize: false } : {};
    const narrow = !printing && plot.clientWidth < 560;
    return window.Plotly.react(plot, traces(chart, chosen, narrow),
      { ...layout(chart, narrow), ...size }, { displayModeBar: false, responsive: true });
  }

  // Radii of both sides as bars over the same bins; the last pair stands past the last edge.
  function drawHistogram(figure) {
    const chart = charts[Number(figure.dataset.histogram)];
    const { edges, names, attacked, certified } = chart.histogram;
    const plot = figure.querySelector(".plot");
    const width = edges[1] - edges[0];
    const x = names.map((_, i) => (i + 0.5) * width);
    const ink = color("--order-0");
    const bars = (y, name, fill, outline) => ({
      type: "bar", x, y, width: 0.94 * width, name, customdata: names.map(plain),
      hovertemplate: `%{y} ${name}<extra></extra>`,
      marker: { color: fill, line: { color: outline, width: 1.2 } },
    });
    const size = printing ? { width: 460, height: 260, autosize: false } : {};
    const narrow = !printing && plot.clientWidth < 560;
    const base = layout(chart, narrow);
    return window.Plotly.react(plot,
      [bars(attacked, "attacked", faded(ink, 0.55), ink), bars(certified, "certified", "rgba(0,0,0,0)", color("--ink"))],
      {
        ...base, ...size, barmode: "overlay",
        annotations: [{
          text: "or more", showarrow: false, x: x[x.length - 1], y: 1, yref: "paper", yanchor: "top",
          xanchor: "center", font: { size: 11, color: color("--soft") },
        }],
        xaxis: {
          ...base.xaxis, ticksuffix: "", nticks: 6, title: { ...base.xaxis.title, text: "radius" },
          unifiedhovertitle: { text: "%{customdata}" },
        },
        yaxis: {
          ...base.yaxis, range: undefined, dtick: undefined, ticksuffix: "", rangemode: "tozero",
          nticks: 5, title: { ...base.yaxis.title, text: "samples" },
        },
      }, { displayModeBar: false, responsive: true });
  }

  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const histograms = [...document.querySelectorAll("figure[data-histogram]")];
  const drawAll = () => Promise.all([...figures.map(draw), ...histograms.map(drawHistogram)]);
  try {
    await loadLibrary();
    for (const figure of [...figures, ...histograms]) figure.classList.add("drawn");
    await drawAll();
  } catch (error) {
    for (const figure of [...figures, ...histograms]) figure.classList.remove("drawn");
    for (const message of document.querySelectorAll(".plot-message")) {
      message.textContent = `The chart could not be drawn (${error.message}). The table below holds the same numbers.`;
    }
    return;
  }
  for (const figure of figures) {
    const control = figure.querySelector(".switch");
    control.hidden = figure.querySelectorAll(".switch input").length <= 2;
    control.addEventListener("change", () => draw(figure));
  }
  dark.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => {
    printing = true;
    for (const entry of document.querySelectorAll("details")) entry.open = true;
    drawAll();
  });
  window.addEventListener("afterprint", () => { printing = false; drawAll(); });
  document.documentElement.dataset.charts = "drawn";
})();
