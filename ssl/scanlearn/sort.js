// Tables of class "sorted" sort by a column when its title is clicked: up, down, then as written.
"use strict";
for (const table of document.querySelectorAll("table.sorted")) {
  const body = table.tBodies[0];
  const written = [...body.rows];
  // A title may span columns or rows: what ends in the last row of titles is a column's own.
  const taken = [...table.tHead.rows].map(() => []);
  [...table.tHead.rows].forEach((row, r) => {
    for (const head of row.cells) {
      let column = 0;
      while (taken[r][column]) column += 1;
      for (let y = r; y < r + head.rowSpan; y += 1) {
        for (let x = column; x < column + head.colSpan; x += 1) taken[y][x] = true;
      }
      const isOwn = r + head.rowSpan === taken.length && head.colSpan === 1;
      if (isOwn && head.textContent.trim() && !head.matches(".plot, .forest")) offer(head, column);
    }
  });
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
          // Blank cells and dashes stay last in either order.
          const isBlank = [a, b].map((key) => (isNumeric ? key[0] === null : key[1] === ""));
          if (isBlank[0] || isBlank[1]) return isBlank[0] - isBlank[1];
          return sign * compare(a, b);
        });
      }
      body.append(...keyed.map(([, row]) => row));
    });
  }
}
