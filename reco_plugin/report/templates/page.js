"use strict";
// Comfort only: the page is complete without it. Sorts tables, copies the command.
const make = (tag, words, more = {}) => Object.assign(document.createElement(tag), { textContent: words }, more);

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 4) continue;
  for (const head of table.tHead.rows[0].cells) {
    const button = make("button", head.textContent, { type: "button", title: "sort" });
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      const numbers = rows.some((row) => row.cells[head.cellIndex].dataset.sort !== undefined);
      const key = (row) => {
        const cell = row.cells[head.cellIndex];
        if (!numbers) return cell.textContent;
        return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
      };
      const order = (a, b) => (numbers ? a - b : a.localeCompare(b));
      const sorted = [...rows].sort((one, other) => {
        const [a, b] = [key(one), key(other)];
        if (a === null || b === null) return (a === null) - (b === null);
        return down ? order(b, a) : order(a, b);
      });
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...sorted);
    });
    head.replaceChildren(button);
  }
}

for (const code of document.querySelectorAll(".made pre code")) {
  if (!navigator.clipboard) continue;
  const button = make("button", "copy", { type: "button", className: "copy" });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  });
  code.before(button);
}
