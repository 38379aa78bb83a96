// Light or dark, as the system has it until a person chooses.
const videorlFrame = {
  kept: 'videorl-dark',
  switchDark() {
    Quasar.Dark.toggle();
    localStorage.setItem(this.kept, Quasar.Dark.isActive);
  },
};
addEventListener('load', () => {
  const kept = localStorage.getItem(videorlFrame.kept);
  if (kept !== null) Quasar.Dark.set(kept === 'true');
});
// Videos of up to 128 pixels are shown enlarged; their size is known once they are open.
addEventListener('loadedmetadata', ({target}) => {
  if (target.tagName === 'VIDEO') target.classList.toggle('tiny', target.videoWidth <= 128);
}, true);
