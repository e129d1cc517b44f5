// Makes the drawings of the page live, one after the other as they come into sight, and lets people choose trials.
"use strict";

const views = new Map(); // by figure, once its drawing is live

function chosenIn(study) {
  return [...study.querySelectorAll("input.choose:checked")].map((box) => Number(box.value));
}

function show(figure) {
  const view = views.get(figure);
  if (view && figure.dataset.chooses) view.signal("chosen", chosenIn(figure.closest("section.study"))).runAsync();
}

async function enliven(figure) {
  const plot = figure.querySelector(".plot");
  const spec = JSON.parse(figure.querySelector("script").textContent);
  plot.style.minHeight = `${plot.offsetHeight}px`; // so that nothing jumps meanwhile
  const drawing = document.createElement("div");
  plot.replaceChildren(drawing);
  const { view } = await drawPlot(drawing, spec, {
    renderer: "svg",
    actions: false,
    ast: true, // expressions are interpreted: the page forbids eval
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
    bind: figure.querySelector(".controls"),
  });
  views.set(figure, view);
  show(figure);
}

const sight = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      sight.unobserve(target);
      enliven(target);
    }
  },
  { rootMargin: "400px" },
);
for (const figure of document.querySelectorAll("figure.chart")) sight.observe(figure);

for (const study of document.querySelectorAll("section.study")) {
  study.addEventListener("change", (event) => {
    if (event.target.matches("input.choose")) study.querySelectorAll("figure.chart").forEach(show);
  });
}
