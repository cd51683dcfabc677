/* Tables of class "sorted" sort by a column when its title is clicked: up, down, then as written. */
/* On a narrow screen each row of a table with titles stands as a list, so that no column is hidden. */
"use strict";
for (const table of document.querySelectorAll("table:has(thead)")) {
  const body = table.tBodies[0];
  const titles = [];
  const written = [...body.rows];
  /* A title may span columns or rows: what ends in the last row of titles is a column's own. */
  const taken = [...table.tHead.rows].map(() => []);
  [...table.tHead.rows].forEach((row, r) => {
    for (const head of row.cells) {
      let column = 0;
      while (taken[r][column]) column += 1;
      const text = head.matches(".plot, .forest") ? "" : head.textContent.trim();
      for (let x = column; x < column + head.colSpan; x += 1) {
        for (let y = r; y < r + head.rowSpan; y += 1) taken[y][x] = true;
        titles[x] = [titles[x], text].filter(Boolean).join(", ");
      }
      const isOwn = r + head.rowSpan === taken.length && head.colSpan === 1;
      if (isOwn && text && table.matches(".sorted")) offer(head, column);
    }
  });
  if (table.closest(".scroll")) stack();
  function stack() {
    table.classList.add("stacked");
    /* What is laid out as a list is still read out as a table. */
    const groups = table.querySelectorAll("thead, tbody, tfoot");
    const roles = [[[table], "table"], [groups, "rowgroup"], [table.rows, "row"]];
    roles.push([table.tHead.querySelectorAll("th"), "columnheader"]);
    roles.push([table.querySelectorAll("tbody th, tfoot th"), "rowheader"]);
    roles.push([table.querySelectorAll("td"), "cell"]);
    for (const [elements, role] of roles) {
      for (const element of elements) element.setAttribute("role", role);
    }
    for (const row of table.querySelectorAll("tbody tr, tfoot tr")) {
      [...row.cells].forEach((cell, column) => {
        if (cell.textContent.trim() || cell.childElementCount) cell.dataset.title = titles[column];
        else cell.classList.add("blank");
      });
    }
  }
  function value(row, column) {
    const cell = row.cells[column];
    if (cell === undefined) return [null, ""];
    const text = (cell.dataset.value ?? cell.textContent).trim();
    const plain = text.replace(/\u2212/g, "-").replace(/^[+<\s]+/, "").replace(/,(?=\d{3})/g, "");
    const number = /^-?(\d+\.?\d*|\.\d+)(e-?\d+)?/.exec(plain);
    return [number ? Number(number[0]) : null, text];
  }
  function compare(first, second) {
    const [a, b] = [first[0], second[0]];
    if (a !== null && b !== null) return a - b;
    return first[1].localeCompare(second[1], "en", { numeric: true });
  }
  function offer(head, column) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const order = next[head.getAttribute("aria-sort")];
      for (const other of table.tHead.querySelectorAll("[aria-sort]")) {
        other.setAttribute("aria-sort", "none");
      }
      head.setAttribute("aria-sort", order);
      table.classList.toggle("moved", order !== "none");
      const keyed = written.map((row) => [value(row, column), row]);
      const isNumeric = keyed.some(([key]) => key[0] !== null);
      if (order !== "none") {
        const sign = order === "ascending" ? 1 : -1;
        keyed.sort(([a], [b]) => {
          /* Blank cells and dashes stay last in either order. */
          const isBlank = [a, b].map((key) => (isNumeric ? key[0] === null : key[1] === ""));
          if (isBlank[0] || isBlank[1]) return isBlank[0] - isBlank[1];
          return sign * compare(a, b);
        });
      }
      body.append(...keyed.map(([, row]) => row));
    });
  }
}
