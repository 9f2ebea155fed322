// What the pages' generator leaves out for readers without a mouse or a screen.
(() => {
  // What scrolls sideways in a narrow window can be reached, and scrolled, from the keyboard.
  const mark = () => {
    for (const element of document.querySelectorAll("article table.table, article div.math, article pre")) {
      if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    }
  };
  for (const moment of ["load", "resize"]) window.addEventListener(moment, mark);
  // The bibliography is called a list, but anchors stand among its entries.
  window.addEventListener("DOMContentLoaded", () => {
    for (const list of document.querySelectorAll("div.citation-list[role=list]")) list.setAttribute("role", "group");
  });
})();
