// xterm.js adds style elements and style attributes to the page, which the page's policy forbids.
// Both are made with constructed style sheets and the object model instead, which it allows: the
// policy stays without an exception.
'use strict';

{
  const createElement = Document.prototype.createElement;
  Document.prototype.createElement = function (name, options) {
    if (String(name).toLowerCase() !== 'style') return createElement.call(this, name, options);
    const holder = createElement.call(this, 'template');
    const sheet = new CSSStyleSheet();
    this.adoptedStyleSheets.push(sheet);
    let text = '';
    Object.defineProperties(holder, {
      sheet: { value: sheet },
      textContent: {
        get: () => text,
        set(next) {
          text = String(next);
          sheet.replaceSync(text);
        },
      },
      remove: {
        value() {
          const sheets = document.adoptedStyleSheets;
          document.adoptedStyleSheets = sheets.filter((other) => other !== sheet);
          Element.prototype.remove.call(holder);
        },
      },
    });
    return holder;
  };

  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === 'style') this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
}
