'use strict';
const TICK = 350;  // ms a frame when playing

const percent = value => (100 * value).toFixed(1);

/** What is known of a frame, in words. */
function words(frame) {
  const numbers = [['J', frame.jaccard], ['unsure', frame.unsure]];
  if (frame.jaccard === null) numbers[0] = ['agreement', frame.agreement];
  const told = numbers.filter(([, value]) => value !== null);
  return ['frame ' + frame.name, ...told.map(([name, v]) => name + ' ' + percent(v))]
    .join(', ');
}

/** Put a frame's picture into an image; nothing is seen where it has none. */
function put(image, frame, number, caption) {
  const data = frame.pictures[number];
  image.alt = caption + ', frame ' + frame.name;
  image.style.visibility = data ? '' : 'hidden';
  if (data) image.src = 'data:image/jpeg;base64,' + data;
}

function viewer(box) {
  const frames = JSON.parse(box.querySelector('script').textContent);
  const find = selector => box.querySelector(selector);
  const time = find('.time input'), play = find('.play'), divider = find('.divider');
  const sides = ['left', 'right'].map(
    side => ({ image: find('img.' + side), select: find('select.' + side) }));
  const chips = [...box.querySelectorAll('[data-at]')];
  const captions = [...sides[0].select.options].map(option => option.text);
  let timer = 0;

  function show(at) {
    const frame = frames[Math.min(Math.max(at, 0), frames.length - 1)];
    time.value = frames.indexOf(frame);
    time.setAttribute('aria-valuetext', words(frame));
    find('output').textContent = words(frame);
    for (const { image, select } of sides) {
      put(image, frame, select.selectedIndex, select.value);
    }
    for (const figure of box.querySelectorAll('[data-picture]')) {
      const number = +figure.dataset.picture;
      put(figure.querySelector('img'), frame, number, captions[number]);
    }
    for (const bars of box.querySelectorAll('.bars')) {
      const middle = (frame.place + 0.5) / bars.dataset.count;
      bars.querySelector('.now').style.left = 100 * middle + '%';
    }
    for (const chip of chips) {
      chip.setAttribute('aria-pressed', chip.dataset.at === time.value);
    }
  }

  function cut() {
    const [left, right] = sides.map(side => side.select.value);
    divider.parentElement.style.setProperty('--cut', divider.value + '%');
    divider.setAttribute('aria-label', `Divider: ${left} left, ${right} right of it`);
  }

  function toggle() {
    clearInterval(timer);
    timer = timer ? 0 : setInterval(() => show((+time.value + 1) % frames.length), TICK);
    play.textContent = timer ? 'Pause' : 'Play';
  }

  /** Show the frame with pictures that is nearest to a click on a strip. */
  function jump(event) {
    const bars = event.currentTarget, area = bars.getBoundingClientRect();
    const wanted = (event.clientX - area.left) / area.width * bars.dataset.count - 0.5;
    const away = frames.map(frame => Math.abs(frame.place - wanted));
    show(away.indexOf(Math.min(...away)));
  }

  /** Keys of the whole box; what has keys of its own keeps them. */
  function press(event) {
    const moves = {
      ArrowLeft: +time.value - 1, ArrowRight: +time.value + 1,
      Home: 0, End: frames.length - 1,
    };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === ' ' && !event.target.closest('button, select, a')) toggle();
    else if (event.key in moves && !event.target.closest('input, select')) {
      show(moves[event.key]);
    } else return;
    event.preventDefault();
  }

  time.addEventListener('input', () => show(+time.value));
  divider.addEventListener('input', cut);
  play.addEventListener('click', toggle);
  box.addEventListener('keydown', press);
  for (const { select } of sides) {
    select.addEventListener('change', () => { cut(); show(+time.value); });
  }
  for (const chip of chips) chip.addEventListener('click', () => show(+chip.dataset.at));
  for (const bars of box.querySelectorAll('.bars')) bars.addEventListener('click', jump);
  cut();
  show(+time.value);
}

document.querySelectorAll('.sequence').forEach(viewer);
