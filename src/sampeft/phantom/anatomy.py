"""The anatomy of a phantom: the upper abdomen of one patient, drawn into a scene.

Coordinates are millimetres: x to the patient's right, y to anterior, z to superior, from the middle of the body at the
level of the first lumbar vertebra.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sampeft.phantom.scene import FAT, WHOLE, Array, Box, Knots, Scene, smooth_max

# FLARE22's label ids
LIVER, KIDNEY_R, SPLEEN, PANCREAS, AORTA, IVC, ADRENAL_R, ADRENAL_L = range(1, 9)
GALLBLADDER, ESOPHAGUS, STOMACH, DUODENUM, KIDNEY_L = range(9, 14)
GAS, LUNG, WATER, MUSCLE, BOWEL_WALL, SPONGIOSA, CORTEX = -950, -830, 12, 58, 75, 150, 540  # HU

# Centre lines: x, y, z and radius in mm.
_AORTA: Knots = [(-14, -20, 115, 12), (-11, -15, 60, 11), (-9, -13, 0, 10), (-6, -13, -70, 9), (-5, -14, -115, 9)]
_IVC: Knots = [
    (22, 16, 112, 12),
    (27, 9, 80, 12),
    (26, -4, 40, 11),
    (23, -11, 0, 11),
    (19, -13, -60, 11),
    (17, -14, -115, 11),
]
_ESOPHAGUS: Knots = [(-3, 5, 115, 9), (-6, 8, 92, 9.5), (-16, 9, 76, 10), (-30, 7, 64, 10)]
_STOMACH: Knots = [
    (-54, 0, 64, 33), (-66, 26, 42, 35), (-66, 48, 14, 29), (-46, 60, -6, 25), (-14, 63, -12, 18), (12, 54, -5, 13),
    (29, 45, -1, 10),
]  # fmt: skip
_DUODENUM: Knots = [
    (33, 42, 0, 10), (47, 30, 2, 11), (57, 16, -8, 11), (58, 11, -36, 11), (45, 6, -59, 10.5), (12, 7, -66, 9.5),
    (-14, 7, -60, 10), (-29, 11, -38, 10), (-32, 20, -24, 10),
]  # fmt: skip
_PANCREAS: Knots = [
    (24, 9, -26, 9), (39, 15, -16, 15), (32, 22, -6, 14), (13, 30, 2, 10.5), (-14, 28, 10, 12), (-44, 10, 20, 12.5),
    (-75, -16, 31, 11.5),
]  # fmt: skip
_GALLBLADDER: Knots = [(47, 30, 4, 5), (57, 44, -13, 12), (68, 58, -33, 15.5)]
_HEPATIC_VEINS: list[Knots] = [
    [(27, 9, 80, 6), (60, 12, 70, 5), (98, 5, 48, 2.5)],
    [(27, 11, 80, 6), (48, 34, 68, 5), (66, 62, 44, 2.5)],
    [(25, 13, 80, 5), (5, 34, 66, 4), (-22, 52, 52, 2)],
]
_PORTAL_BRANCHES: list[Knots] = [
    [(36, 21, 14, 6), (60, 8, 20, 5.5), (94, -18, 30, 2.5)],
    [(58, 9, 20, 5), (84, 24, 8, 4), (100, 40, -6, 2)],
    [(36, 21, 14, 6), (22, 42, 30, 5), (-8, 56, 42, 2.5)],
    [(84, -10, 26, 4), (104, -22, 0, 3), (108, -10, -24, 2)],
]
_VEINS: list[Knots] = [
    [(14, 12, -4, 6.5), (26, 17, 6, 6.5), (38, 22, 15, 6.5)],  # portal
    [(14, 12, -3, 4.5), (-18, 15, 4, 4.5), (-48, -2, 16, 4), (-86, -22, 34, 3.5)],  # splenic
    [(15, 13, -4, 5.5), (14, 23, -40, 5.5), (14, 30, -115, 4.5)],  # superior mesenteric
    [(20, -7, -4, 5), (-5, 1, -3, 4.5), (-32, -22, -4, 4.5), (-56, -38, -3, 5)],  # left renal
    [(24, -11, -18, 5), (44, -30, -19, 5), (58, -38, -20, 5)],  # right renal
]
_ARTERIES: list[Knots] = [
    [(-8, -4, 24, 4), (-6, 10, 27, 4), (10, 16, 26, 3)],  # coeliac
    [(-8, -4, 10, 4), (-3, 12, -6, 4), (-1, 23, -50, 3.5), (2, 30, -115, 3)],  # superior mesenteric
]
_COLON: list[Knots] = [
    [(100, -10, -115, 24), (101, -6, -80, 24), (96, 20, -58, 22), (72, 62, -62, 20), (30, 76, -66, 19),
     (-30, 76, -60, 19)],
    [(-30, 76, -60, 19), (-76, 60, -42, 18), (-104, 24, -14, 17), (-108, -8, -36, 15), (-106, -20, -80, 14),
     (-100, -20, -115, 14)],
]  # fmt: skip


def _grow(knots: Knots, factor: float, shift_mm: npt.ArrayLike = (0, 0, 0)) -> Knots:
    """Knots with radii times `factor`, moved by `shift_mm`."""
    dx, dy, dz = np.asarray(shift_mm).tolist()
    return [(x + dx, y + dy, z + dz, r * factor) for x, y, z, r in knots]


class Patient:
    """Draws one patient: the build is chosen first, then tissues from outside in, then organs from back to front."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene, self.rng = scene, rng
        self.fat_mm = rng.uniform(10, 32)
        self.vessel_hu = rng.uniform(140, 175)
        self.dome_mm = rng.uniform(84, 93)
        x, y, z = scene.frame_mm
        # Distance to the wall of the abdominal cavity, along rays from the middle, and where on the wall a ray ends.
        radius = np.hypot(x, y) + 1e-3
        u, v = np.abs(x) / (139 + 0.05 * z), np.abs(y) / np.where(y > 0, np.float32(96), np.float32(80))
        self.cavity = radius - radius / (u**2.3 + v**2.3 + 1e-9) ** (1 / 2.3)
        self.back = np.clip(-y / radius, 0, 1) ** 2
        self.radius = radius

    def near(self, value: float, spread: float) -> float:
        """Random value in value +- spread."""
        return value + spread * float(self.rng.uniform(-1, 1))

    def dome(self, x: Array, y: Array) -> Array:
        """Height of the diaphragm over (x, y); the right one stands higher."""
        side, top = np.where(x > 0, np.float32(1), np.float32(-1)), np.where(x > 0, self.dome_mm, self.dome_mm - 6)
        outward = (side * x - 62) / 62
        fall = np.where(outward > 0, 32 * outward**2, 12 * outward**2) + np.where(y > 16, 14, 32) * ((y - 16) / 90) ** 2
        return np.asarray(top - fall, dtype=np.float32)

    def draw(self) -> None:
        self.wall_and_table()
        self.chest()
        self.bones_and_muscles()
        self.bowel()
        self.liver_and_spleen()
        self.vessels()
        self.kidneys_and_adrenals()
        self.digestive_tract()

    def wall_and_table(self) -> None:
        scene, cavity, back = self.scene, self.cavity, self.back
        x, y, _ = scene.frame_mm
        wall_mm = 12 + 12 * back
        front = np.clip(y / self.radius, 0, 1) ** 2
        fat_mm = self.fat_mm * (0.75 + 0.5 * back + 0.4 * front)
        skin = cavity - wall_mm - fat_mm
        bed_y = float((y[skin < 0]).min()) - 5
        bed = np.abs(np.hypot(x, y - bed_y - 420) - 420)
        scene.paint(WHOLE, np.maximum(bed - 2, np.abs(x) - 190), -140)
        scene.paint(WHOLE, skin, 15)
        scene.paint(WHOLE, skin + 2, FAT + 6 * scene.texture)
        layers = 45 * np.exp(-(((cavity - 5) / 1.2) ** 2)) * (1 - back)  # fat between the oblique muscles
        linea_alba = 60 * np.exp(-((x / 5) ** 2)) * front
        scene.paint(WHOLE, cavity - wall_mm, MUSCLE + 7 * scene.texture - layers - linea_alba)
        scene.paint(WHOLE, cavity, FAT + 6 * scene.texture)

    def chest(self) -> None:
        scene = self.scene
        box = scene.box((-160, -130, -10), (160, 130, 140))
        x, y, z = scene.at(box)
        front = 1 / (1 + np.exp(-(y + 5) / 12))
        mediastinum = 24 + 24 * front - np.abs(x + 5 + 8 * front)
        lung = smooth_max(self.cavity[box] + 1, (self.dome(x, y) - z) * 0.8, mediastinum, round_mm=10)
        scene.paint(box, np.maximum(lung - 3, mediastinum + 2), MUSCLE)  # the diaphragm
        scene.paint(box, lung, LUNG + 880 * np.clip(2 * np.abs(scene.texture[box]) - 3.8, 0, 1))  # and its vessels
        scene.paint(*scene.ellipsoid((-20, 36, 120), (74, 52, 49)), FAT)
        scene.paint(*scene.ellipsoid((-20, 36, 120), (70, 48, 45)), 125)
        # Ribs 12 to 7 run in the wall, down from the spine to the side and up again in front.
        box = scene.box((-175, -130, -90), (175, 130, 140))
        z, angle = scene.frame_mm[2][box], np.arccos(np.clip(-scene.frame_mm[1][box] / self.radius[box], -1, 1))
        depth = (self.cavity[box] - 5) / 0.55
        ribs = np.full_like(z, 99)
        for level, end in enumerate([1.05, 1.6, 2.0, 2.3, 2.5, 2.6]):
            middle = 32 + 33 * level - (84 + 7 * level) * np.sin(np.minimum(angle, 2.3) * 0.68) ** 2
            rib = np.sqrt(depth**2 + ((z - middle) * 0.8) ** 2) - 6
            ribs = np.minimum(ribs, np.maximum(rib * 0.7, np.maximum(0.32 - angle, angle - end) * 80))
        scene.paint(box, ribs, CORTEX)
        scene.paint(box, ribs + 2, SPONGIOSA + 60)

    def bones_and_muscles(self) -> None:
        scene = self.scene
        muscles: list[tuple[Knots, float]] = [  # on the right, with how round they are
            ([(31, -86, 120, 20), (34, -86, 0, 25), (33, -86, -120, 26)], 0.85),  # erector spinae
            ([(24, -44, 22, 4), (33, -46, -20, 13), (42, -42, -120, 24)], 1),  # psoas
            ([(60, -74, 5, 7), (68, -72, -120, 14)], 0.8),  # quadratus lumborum
            ([(18, -26, 70, 6), (15, -27, 20, 7), (14, -30, -30, 4)], 1.2),  # crus of the diaphragm
        ]
        for side in (1, -1):
            for knots, flat in muscles:
                scene.paint(*scene.tube([(side * x, y, z, radius) for x, y, z, radius in knots], flat, 0.7), MUSCLE)
        x, y, z = scene.at(box := scene.box((-34, -75, -200), (34, -20, 200)))
        pitch, rise = 33.0, self.near(0, 6)
        phase = np.abs(((z - rise) / pitch + 0.5) % 1 - 0.5) * 2  # 0 mid-vertebra, 1 mid-disc
        waist = 1 + 0.1 * phase**2
        body = np.hypot(x / 1.3, y + 46) - 16.5 * waist
        disc = (0.74 - phase) * pitch / 2
        scene.paint(box, body, 95)
        scene.paint(box, np.maximum(body, -disc), CORTEX - 80)
        scene.paint(box, np.maximum(body + 2.5, 2.5 - disc), SPONGIOSA + 15 * scene.texture[box])
        for level in range(-5, 6):
            z0 = level * pitch + rise
            for side in (1, -1):
                arch: list[Knots] = [
                    [(side * 15, -58, z0 + 4, 5), (side * 17, -72, z0 + 2, 5.5)],
                    [(side * 17, -72, z0 + 2, 5.5), (side * 3, -92, z0 - 6, 5)],
                    [(side * 17, -72, z0, 5), (side * 42, -80, z0 + 2, 4)],
                    [(0, -92, z0 - 6, 4), (0, -107, z0 - 12, 5)],
                ]
                for bone in arch:
                    box, distance = scene.tube(bone)
                    scene.paint(box, distance, CORTEX - 150)
                    scene.paint(box, distance + 2.5, SPONGIOSA + 80)
        scene.paint(*scene.tube([(0, -73, 120, 10), (0, -73, -120, 11)]), -20)
        scene.paint(*scene.tube([(0, -73, 120, 7), (0, -73, -120, 7.5)]), 32)

    def hollow(
        self, box: Box, distance_mm: Array, label: int, wall_mm: float, content: float | Array, gas_y: float = np.inf
    ) -> None:
        """Wall, content and, where y lies above `gas_y`, gas: it rises in a patient who lies on the back."""
        scene, lumen = self.scene, distance_mm + wall_mm
        scene.paint(box, distance_mm - 1, FAT, 0)
        scene.paint(box, distance_mm, BOWEL_WALL + 4 * scene.texture[box], label)
        scene.paint(box, lumen, content)
        scene.paint(box, np.maximum(lumen, gas_y - scene.at(box)[1]), GAS)

    def bowel(self) -> None:
        """Colon and small bowel: no label of their own, there to be told apart."""
        scene, rng = self.scene, self.rng
        for _ in range(15):  # loops of small bowel in the lower half
            start = np.array([rng.uniform(-75, 75), rng.uniform(20, 62), rng.uniform(-112, -52)])
            walk = start + np.cumsum(rng.normal(0, [18, 11, 9], (6, 3)), axis=0)
            walk = np.clip(walk, [-88, 14, -118], [86, 72, -40 - 0.2 * abs(start[0])])
            loop = np.column_stack([walk, rng.uniform(9, 13, 6)]).tolist()
            gas_y = float(walk[:, 1].mean() + 6) if rng.random() < 0.25 else np.inf
            self.hollow(*scene.tube(loop), 0, 3, float(rng.choice([15, 35, 60])), gas_y)
        for index, knots in enumerate(_COLON):
            box, distance = scene.tube(_grow(knots, self.near(0.95, 0.15), rng.uniform(-5, 5, 3)), 1, 2.5)
            faeces = np.clip(-20 + 150 * scene.texture[box], -500, 60)
            self.hollow(box, distance, 0, 3, faeces, self.near((78, 70)[index], 9))

    def liver_and_spleen(self) -> None:
        scene, rng = self.scene, self.rng
        x, y, z = scene.at(box := scene.box((-90, -100, -90), (150, 110, 110)))
        left = self.near(-68, 12)
        oblique = x + 0.4 * (y - 20)
        lower = np.interp(
            oblique, [left, -20, 20, 45, 65, 120], np.array([50, 27, 18, 4, -22, -64]) + self.near(0, 8)
        ).astype(np.float32)
        behind = np.interp(x, [-60, -20, 8, 30, 50, 75, 115], [42, 26, 12, -10, -38, -64, -95]).astype(np.float32)
        diaphragm = (z - self.dome(x, y) + 3.5) * 0.85
        bounds = (self.cavity[box] + 2, diaphragm, (lower - z) * 0.8, (behind - y) * 0.75, left - x)
        liver = smooth_max(*bounds, round_mm=14)
        liver_hu = rng.uniform(103, 126)
        scene.organ(box, liver, liver_hu, LIVER)
        inside = scene.labels == LIVER
        for knots in [*_HEPATIC_VEINS, *_PORTAL_BRANCHES]:
            box, distance = scene.tube(_grow(knots, 1.2, rng.uniform(-3, 3, 3)))
            scene.paint(box, np.where(inside[box], distance, np.float32(99)), max(self.vessel_hu, liver_hu + 30))
        size = self.near(1.12, 0.09)
        box, spleen = scene.ellipsoid((-104, -30, self.near(34, 6)), (34 * size, 54 * size, 52 * size), (0.1, -0.2))
        x, y, z = scene.at(box)
        hilum = np.sqrt(((x + 66) / 27) ** 2 + ((y + 2) / 46) ** 2 + ((z - 34) / 70) ** 2)
        spleen = smooth_max(spleen, self.cavity[box] + 3, (z - self.dome(x, y) + 3.5) * 0.85, (1 - hilum) * 30)
        scene.organ(box, spleen, rng.uniform(108, 132), SPLEEN)

    def vessels(self) -> None:
        scene = self.scene
        for knots in [*_VEINS, *_ARTERIES]:
            scene.paint(*scene.tube(_grow(knots, self.near(1, 0.1))), self.vessel_hu, 0)
        box, aorta = scene.tube(_grow(_AORTA, self.near(1.03, 0.12)))
        scene.organ(box, aorta, self.vessel_hu + self.near(5, 8), AORTA, 1, 2)
        box, ivc = scene.tube(_grow(_IVC, self.near(1.05, 0.1)), self.near(0.75, 0.12))
        scene.organ(box, ivc, self.vessel_hu - self.near(12, 10), IVC, 0.5, 2)

    def kidneys_and_adrenals(self) -> None:
        scene, rng = self.scene, self.rng
        cortex_hu = rng.uniform(168, 200)
        for side, kidney, adrenal, level in ((1, KIDNEY_R, ADRENAL_R, -20), (-1, KIDNEY_L, ADRENAL_L, -4)):
            size = self.near(1.02, 0.05)
            centre = np.array([side * self.near(66, 3), self.near(-46, 2), self.near(level, 6)])
            radii, lean = np.array([28, 26, 54]) * size, (-side * 0.2, -0.12)
            box, bean = scene.ellipsoid(centre, radii, lean)
            x, _, z = scene.at(box)
            notch = np.hypot(x - centre[0] + side * 34 * size, z - centre[2]) - 15 * size  # bends the oval into a bean
            bean = smooth_max(bean, self.cavity[box] + 4, -notch) + scene.texture[box]
            scene.organ(box, bean, cortex_hu, kidney, 5 if side > 0 else 4)
            for turn in np.linspace(-2.2, 2.2, 7):  # pyramids round the sinus
                at = centre + np.array([side * 13 * np.cos(turn), self.near(0, 6), 30 * np.sin(turn)])
                at[:2] += np.multiply(lean, at[2] - centre[2])
                tip, pyramid = scene.ellipsoid(at, (6, 6, 7))
                scene.paint(tip, pyramid, cortex_hu - 38)
            sinus = centre - np.array([side * 14, -5, 0])
            scene.paint(*scene.ellipsoid(sinus, (15, 8, 19)), FAT + 15, 0)
            scene.paint(*scene.ellipsoid(sinus - np.array([side * 4, -1, 0]), (9, 4, 7)), self.vessel_hu - 25, 0)
            self.adrenal(side, adrenal)

    def adrenal(self, side: int, label: int) -> None:
        """Two thin limbs that spread backwards and downwards from a ridge, like an inverted Y."""
        scene = self.scene
        apex = np.array([31, -20, 46]) if side > 0 else np.array([-36, -17, 36])
        apex = apex + self.rng.uniform(-2, 2, 3)
        thickness, half_height = self.near(2.2, 0.2), self.near(14, 1.5)
        margin = np.array([30, 34, half_height + 5])
        box = scene.box(apex - margin, apex + margin)
        x, y, z = (c - m for c, m in zip(scene.at(box), apex.astype(np.float32), strict=True))
        spread = 1 - z / (2.2 * half_height)
        gland = np.full_like(x, 99)
        for end_x, end_y in ((side * -3, -22), (side * 13, -19)):
            ex, ey = end_x * spread, end_y * (0.55 + 0.45 * spread)
            t = np.clip((x * ex + y * ey) / (ex * ex + ey * ey + 1e-3), 0, 1)
            gland = np.minimum(gland, np.hypot(x - t * ex, y - t * ey) - thickness * (1.2 - 0.35 * t))
        gland = np.maximum(gland, np.abs(z) - half_height)
        scene.paint(box, gland - 3, FAT, 0)
        scene.paint(box, gland, self.near(98, 10), label)

    def digestive_tract(self) -> None:
        scene, rng = self.scene, self.rng
        box, distance = scene.tube(_grow(_DUODENUM, self.near(0.97, 0.1)), 1, 1)
        self.hollow(box, distance, DUODENUM, 3.5, 20 + 15 * scene.texture[box], self.near(30, 8))
        box, distance = scene.tube(_grow(_PANCREAS, self.near(1.1, 0.08)), 1, 1.6)
        scene.organ(box, distance, self.near(95, 10), PANCREAS, 1, 8)
        full, meal = self.near(0.86, 0.1), float(rng.choice([WATER, 35, 150]))
        box, distance = scene.tube(
            [(x, y, z, r * (full if i < 4 else 1)) for i, (x, y, z, r) in enumerate(_STOMACH)], 1, 1
        )
        distance = np.maximum(distance, self.cavity[box] + 3)
        self.hollow(box, distance, STOMACH, 4, meal + 8 * scene.texture[box], self.near(62, 10))
        box, distance = scene.tube(_grow(_ESOPHAGUS, self.near(1, 0.1)))
        self.hollow(box, distance, ESOPHAGUS, 4.5, self.near(0, 40))
        box, distance = scene.tube(_grow(_GALLBLADDER, self.near(1, 0.13), rng.uniform(-4, 4, 3)))
        scene.paint(box, distance, 55, GALLBLADDER)
        scene.paint(box, distance + 1.5, self.near(8, 5))
