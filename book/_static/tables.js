// Tables that readers sort and filter. Without scripts they are plain tables, whole and in the papers' order.
(() => {
  "use strict";

  const STEP = 100; // rows shown at first, and more at a time: browsers are slow to lay out thousands

  // ---------------------------------------------------------------------------------------------------- sorting

  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function valueOf(row, column) {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  }

  // Numbers come before words, and what is blank comes last in either direction.
  function compare(a, b, sign) {
    const rank = (value) => (value === "" ? 2 : typeof value === "string" ? 1 : 0);
    if (rank(a) !== rank(b)) return rank(a) === 2 || rank(b) === 2 ? rank(a) - rank(b) : sign * (rank(a) - rank(b));
    return sign * (typeof a === "number" ? a - b || 0 : collator.compare(a, b));
  }

  function sortTable(table, column, order) {
    table.headings.forEach((heading, i) => {
      if (i === column) heading.setAttribute("aria-sort", order);
      else heading.removeAttribute("aria-sort");
    });
    let rows = table.inOrder;
    if (column >= 0) {
      const sign = order === "descending" ? -1 : 1;
      const keyed = rows.map((row) => [valueOf(row, column), row]);
      rows = keyed.sort(([a], [b]) => compare(a, b, sign)).map(([, row]) => row);
    }
    table.tBodies[0].append(...rows);
    table.dispatchEvent(new Event("sorted"));
  }

  function makeSortable(table) {
    table.inOrder = [...table.tBodies[0].rows];
    table.headings = [...table.tHead.rows[0].cells];
    table.headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const ascending = heading.getAttribute("aria-sort") === "ascending";
        sortTable(table, column, ascending ? "descending" : "ascending");
      });
    });
  }

  // -------------------------------------------------------------------------------------------------- filtering

  function makeFilterable(form) {
    const table = document.getElementById(form.dataset.table);
    const status = form.querySelector("[role=status]");
    const more = document.createElement("button");
    const fields = [...form.querySelectorAll("select, input")];
    const texts = new Map();
    let limit = STEP;

    more.type = "button";
    more.className = "table-more";
    table.parentElement.after(more);
    more.addEventListener("click", () => {
      limit += STEP;
      show();
    });

    const number = (n) => n.toLocaleString("en");

    function holds(row, { name, value }) {
      if (!value) return true;
      if (name !== "text") return row.dataset[name] === value;
      if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
      return value.toLowerCase().split(/\s+/).every((word) => texts.get(row).includes(word));
    }

    function matching() {
      return [...table.tBodies[0].rows].filter((row) => fields.every((field) => holds(row, field)));
    }

    function show() {
      const found = matching();
      const shown = new Set(found.slice(0, limit));
      for (const row of table.inOrder) row.hidden = !shown.has(row);
      const part = shown.size < found.length ? `; the first ${number(shown.size)} are shown` : "";
      status.textContent = `${number(found.length)} of ${number(table.inOrder.length)} claims${part}.`;
      more.hidden = shown.size === found.length;
      more.textContent = `Show ${Math.min(STEP, found.length - shown.size)} more of ${number(found.length)} claims`;
    }

    // The address keeps the view: #paper=cscr&verdict=partly&sort=4&order=descending
    function remember() {
      const view = new URLSearchParams(fields.filter((f) => f.value).map((f) => [f.name, f.value]));
      const sorted = table.headings.findIndex((heading) => heading.hasAttribute("aria-sort"));
      if (sorted >= 0) {
        view.set("sort", sorted + 1);
        view.set("order", table.headings[sorted].getAttribute("aria-sort"));
      }
      history.replaceState(null, "", view.size ? `#${view}` : location.pathname + location.search);
    }

    function adopt(view) {
      for (const field of fields) field.value = view.get(field.name) ?? "";
      // A select has no value that is none of its options: an outdated address shows all.
      for (const field of fields) if (field.selectedIndex === -1) field.value = "";
      limit = STEP;
      const column = Number(view.get("sort") ?? 0) - 1;
      sortTable(table, column, view.get("order") === "descending" ? "descending" : "ascending");
    }

    function reveal(row) {
      if (row.hidden) adopt(new URLSearchParams());
      if (row.hidden) {
        limit = Infinity;
        show();
      }
      row.scrollIntoView({ block: "center" });
    }

    function follow() {
      const target = document.getElementById(location.hash.slice(1));
      if (target?.closest("table") === table) reveal(target);
      else if (location.hash.includes("=")) adopt(new URLSearchParams(location.hash.slice(1)));
    }

    table.addEventListener("sorted", show);
    table.tHead.addEventListener("click", remember);
    form.addEventListener("input", () => {
      limit = STEP;
      show();
      remember();
    });
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      adopt(new URLSearchParams());
      remember();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    document.querySelectorAll("a[data-filter]").forEach((link) => {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        adopt(new URLSearchParams(link.dataset.filter));
        remember();
        form.scrollIntoView();
        fields[0].focus({ preventScroll: true });
      });
    });
    addEventListener("hashchange", follow);
    form.hidden = false;
    show();
    follow();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("table.sortable").forEach(makeSortable);
    document.querySelectorAll("form.table-filters").forEach(makeFilterable);
  });
})();
