"""`ncflow explore`: one self-contained page that evaluates the closed forms as sliders move.

`formulas.js` and `flow.js` are the formulas of `theory/` in JavaScript; the other scripts, `page.html` and `style.css` are what
is seen. `build` puts them into one file, with values that `theory/` and the engine give for drawn settings (`reference`); the
page evaluates them again when it opens and says how well it agrees.
"""
