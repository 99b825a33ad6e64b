"use strict";
// Comfort only: the page is complete without it. Sorts tables, filters cases, copies the command.
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

for (const sheet of document.querySelectorAll(".sheet")) {
  const cases = [...sheet.querySelectorAll(".case")];
  if (cases.length < 4) continue;
  const box = make("label", "Show only ", { className: "filter" });
  const input = make("input", "", { type: "search", placeholder: "words in names and captions" });
  const told = make("span", "", { className: "soft" });
  told.setAttribute("aria-live", "polite");
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const one of cases) one.hidden = !one.textContent.toLowerCase().includes(wanted);
    for (const more of sheet.querySelectorAll(".more")) if (wanted) more.open = true;
    told.textContent = wanted ? `${cases.filter((one) => !one.hidden).length} of ${cases.length}` : "";
  });
  box.append(input, told);
  sheet.querySelector(".cases").before(box);
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
