// What scrolls sideways in a narrow window can be reached, and scrolled, from the keyboard.
(() => {
  const mark = () => {
    for (const element of document.querySelectorAll("article table.table, article div.math, article pre")) {
      if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    }
  };
  for (const moment of ["load", "resize"]) window.addEventListener(moment, mark);
})();
