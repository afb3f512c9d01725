'use strict';
const list = document.querySelector('.clips');
const clips = [...list.children];
const find = id => document.getElementById(id);
const sort = find('sort'), named = find('name'), most = find('most');
const warned = find('warned');

/** Order clips by one of their numbers or by name; what has no number comes last. */
function compare(key, down) {
  if (key === 'name') return (a, b) => a.dataset.name.localeCompare(b.dataset.name);
  const number = clip => clip.dataset[key] === '' ? Infinity
    : (down ? -1 : 1) * clip.dataset[key];
  return (a, b) => {
    const [x, y] = [number(a), number(b)];
    return x === y ? a.dataset.place - b.dataset.place : x - y;
  };
}

function update() {
  const option = sort.selectedOptions[0];
  list.append(...clips.sort(compare(option.value, 'down' in option.dataset)));
  const limit = most ? +most.value : 100, part = named.value.trim().toLowerCase();
  for (const clip of clips) {
    const { name, score, warnings } = clip.dataset;
    clip.hidden = !name.toLowerCase().includes(part)
      || (limit < 100 && (score === '' || +score > limit))
      || (warned.checked && warnings === '0');
  }
  if (most) most.nextElementSibling.textContent = limit;
  const shown = clips.filter(clip => !clip.hidden).length;
  find('count').textContent = `${shown} of ${clips.length} shown`;
}

for (const control of [sort, named, most, warned]) {
  control?.addEventListener('input', update);
}
update();
