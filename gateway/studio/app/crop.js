// How the server crops a face: the similarity that takes five points to the template, as faceclip_serving/face/alignment.py does.

export const SIDE = 448; // of the crop, in pixels
const TEMPLATE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]].map((point) => point.map((end) => end * 4));

const mean = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);

/** [a, b, x, y] with (u, v) -> (a u - b v + x, b u + a v + y), of least squares, for the five `landmarks` in pixels of the photograph. */
export function similarity(landmarks) {
  const from = mean(landmarks), to = mean(TEMPLATE);
  let along = 0, across = 0, spread = 0;
  landmarks.forEach(([u, v], i) => {
    const [du, dv, dx, dy] = [u - from[0], v - from[1], TEMPLATE[i][0] - to[0], TEMPLATE[i][1] - to[1]];
    along += du * dx + dv * dy;
    across += du * dy - dv * dx;
    spread += du * du + dv * dv;
  });
  const [a, b] = [along / spread, across / spread];
  return [a, b, to[0] - a * from[0] + b * from[1], to[1] - b * from[0] - a * from[1]];
}

/** Draws the crop, and the points in it. `image`: upright, `size`: its width and height as the server told it. */
export function drawCrop(canvas, image, size, landmarks, colour) {
  const context = canvas.getContext('2d');
  const scale = canvas.width / SIDE;
  const [a, b, x, y] = similarity(landmarks);
  context.reset();
  context.imageSmoothingQuality = 'high';
  context.setTransform(a * scale, b * scale, -b * scale, a * scale, x * scale, y * scale);
  context.drawImage(image, 0, 0, ...size);
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.fillStyle = colour;
  context.strokeStyle = '#fff';
  context.lineWidth = 5;
  for (const [u, v] of landmarks) {
    context.beginPath();
    context.arc(a * u - b * v + x, b * u + a * v + y, 15, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
}
