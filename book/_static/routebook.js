// Mends what the theme leaves out for readers who use a keyboard or a screen reader.
(() => {
  "use strict";

  // The arrows that unfold the book's contents have no words.
  function nameArrows() {
    document.querySelectorAll("li.has-children > details > summary").forEach((summary) => {
      const link = summary.closest("li").querySelector("a");
      summary.setAttribute("aria-label", `Pages of ${link.textContent.trim()}`);
      summary.querySelector("[role=presentation]")?.setAttribute("aria-hidden", "true");
    });
  }

  // The column of contents is no landmark, so that its title and search cannot be found as part of one.
  function nameSidebar() {
    const sidebar = document.getElementById("pst-primary-sidebar");
    sidebar?.setAttribute("role", "region");
    sidebar?.setAttribute("aria-label", "The book");
  }

  // Entries of a bibliography stand in a list, and are not marked as its items.
  function nameEntries() {
    document.querySelectorAll("[role=list] > [role=doc-biblioentry]").forEach((entry) => {
      entry.setAttribute("role", "listitem");
    });
  }

  // What is larger than its place on the page scrolls in a box of its own; arrow keys reach only what can have the focus.
  const BOXES = ".scroll, .cell_output, .output, .pst-scrollable-table-container, .math, pre, mjx-container, figure";

  function reachBoxes() {
    document.querySelectorAll(`.bd-article :is(${BOXES})`).forEach((box) => {
      const larger = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
      if (larger && box.tabIndex < 0 && getComputedStyle(box).overflowX !== "visible") {
        box.tabIndex = 0;
        if (!box.hasAttribute("role") && !box.matches("mjx-container, figure")) {
          box.setAttribute("role", "group");
          box.setAttribute("aria-label", "Larger than its box: scroll");
        }
      }
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    nameArrows();
    nameSidebar();
    nameEntries();
    // What a box holds grows when formulas are set, figures arrive or it is unfolded.
    const observer = new ResizeObserver(reachBoxes);
    document.querySelectorAll(`.bd-article :is(${BOXES})`).forEach((box) => {
      for (const part of [box, ...box.children]) observer.observe(part);
    });
  });
})();
