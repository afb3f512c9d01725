for (const box of document.querySelectorAll('.sequence')) {
  const data = JSON.parse(box.querySelector('script').textContent);
  const slider = box.querySelector('input'), out = box.querySelector('output');
  const images = [...box.querySelectorAll('img')];
  const chips = [...box.querySelectorAll('.worst button')];
  const show = at => {
    const frame = data[at];
    slider.value = at;
    images.forEach((image, i) => {
      image.parentElement.style.visibility = frame.pictures[i] ? '' : 'hidden';
      if (frame.pictures[i]) image.src = 'data:image/jpeg;base64,' + frame.pictures[i];
    });
    const number = (name, value) =>
      value === null ? '' : '   ' + name + ' ' + (100 * value).toFixed(1);
    out.textContent = 'frame ' + frame.name + (frame.jaccard === null
      ? number('agreement', frame.agreement) : number('J', frame.jaccard));
    chips.forEach(chip => chip.classList.toggle('on', +chip.dataset.at === at));
  };
  slider.addEventListener('input', () => show(+slider.value));
  chips.forEach(chip => chip.addEventListener('click', () => show(+chip.dataset.at)));
  const play = box.querySelector('.play');
  let timer = 0;
  play.addEventListener('click', () => {
    if (timer) { clearInterval(timer); timer = 0; play.textContent = 'play'; return; }
    play.textContent = 'stop';
    timer = setInterval(() => show((+slider.value + 1) % data.length), 350);
  });
  show(+slider.value);
}
