/* The interactive deferral curve: a control for lambda that moves what `book/deferral_widget.py` has drawn. */
(function () {
  "use strict";

  function inWords(llms, mix) {
    return mix
      .map((share, i) => [share, llms[i]])
      .filter((part) => part[0] >= 0.5)
      .sort((a, b) => b[0] - a[0])
      .map((part) => `${part[0].toFixed(0)} % ${part[1]}`)
      .join(", ");
  }

  function movers(root, data) {
    return Object.entries(data.methods).map(([method, points]) => {
      const row = root.querySelector(`tr[data-method="${method}"]`);
      const point = root.querySelector(`g[data-method="${method}"]`);
      const mix = row.querySelector(".deferral-mix");
      return (at) => {
        point.setAttribute("transform", `translate(${points.x[at]} ${points.y[at]})`);
        row.querySelector(".deferral-cost").textContent = points.cost[at];
        row.querySelector(".deferral-quality").textContent = points.quality[at];
        points.mix[at].forEach((share, i) => (mix.children[i].style.width = `${share}%`));
        mix.setAttribute("aria-label", inWords(data.llms, points.mix[at]));
      };
    });
  }

  function control(root, data, move) {
    const label = document.createElement("label");
    label.textContent = "Trade-off λ, from quality at any cost to the cheapest LLM";
    const slider = document.createElement("input");
    slider.type = "range";
    slider.min = 0;
    slider.max = data.worth.length - 1;
    slider.step = 1;
    slider.value = root.dataset.start;
    label.append(slider);
    root.querySelector(".deferral-control").prepend(label);
    const shown = root.querySelector(".deferral-control output");
    function update() {
      const at = Number(slider.value);
      shown.textContent = data.worth[at];
      slider.setAttribute("aria-valuetext", `a unit of quality is worth ${data.worth[at]}`);
      move.forEach((each) => each(at));
    }
    slider.addEventListener("input", update);
    update();
  }

  function start() {
    document.querySelectorAll("div.deferral").forEach((root) => {
      const data = JSON.parse(root.querySelector(".deferral-data").textContent);
      control(root, data, movers(root, data));
    });
  }

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", start);
  } else {
    start();
  }
})();
