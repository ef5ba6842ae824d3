// What a mark says to a screen reader, shown to whoever points at it.
(() => {
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest && event.target.closest("figure path[aria-label], figure [aria-label][role=graphics-symbol]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.getAttribute("aria-label");
    const box = mark.getBoundingClientRect();
    const left = Math.min(box.x + box.width / 2, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, left) + scrollX}px`;
    tip.style.top = `${box.y + scrollY - tip.offsetHeight - 6}px`;
  });
})();
