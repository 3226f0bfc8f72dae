"use strict";
// The map and the plots. Texts come from the server with their markup escaped, since Plotly reads some of it.
document.addEventListener("DOMContentLoaded", () => {
  const map = document.getElementById("map");
  if (map && window.Plotly) {
    fetch("/atlas/tree.json").then((reply) => reply.json()).then((tree) => {
      Plotly.newPlot(map, [{
        type: "treemap", ids: tree.ids, labels: tree.labels, parents: tree.parents, values: tree.values,
        branchvalues: "total", maxdepth: 3, hovertemplate: "%{label}<br>%{value:,.0f} events<extra></extra>",
        marker: { colors: tree.colors, line: { color: "#fff", width: 1 } },
        textfont: { size: 14 }, tiling: { pad: 2 }, pathbar: { thickness: 26 },
      }], { margin: { l: 0, r: 0, t: 28, b: 0 }, paper_bgcolor: "#fff" },
      { displayModeBar: false, responsive: true });
      map.on("plotly_treemapclick", (event) => {
        const id = event.points[0].id;
        if (id && id !== "all") {
          const [level, cluster] = id.split("-");
          htmx.ajax("GET", `/atlas/cluster?level=${level}&cluster=${cluster}`, "#found");
        }
      });
    });
  }
  for (const plot of document.querySelectorAll("[data-plot]")) {
    if (!window.Plotly) { continue; }
    const given = JSON.parse(document.getElementById(plot.dataset.plot).textContent);
    Plotly.newPlot(plot, [{ type: "bar", x: given.place, y: given.count, text: given.name, textposition: "none",
      hovertemplate: "%{text}<br>first answer of %{y:,} pairs<extra></extra>", marker: { color: "#1f6b43" } }],
    { margin: { l: 55, r: 10, t: 5, b: 40 }, xaxis: { title: { text: "interest, most frequent first" } },
      yaxis: { title: { text: "pairs" } }, bargap: 0.05 }, { displayModeBar: false, responsive: true });
  }
});
