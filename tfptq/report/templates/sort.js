// A click on the head of a column sorts the table by it, a second one the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = head.classList.contains("text")
      ? (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true })
      : (a, b) => parseFloat(key(a)) - parseFloat(key(b));
    const rows = [...body.rows].sort(compare);
    body.append(...(descending ? rows.reverse() : rows));
  }));
}
