"""One street: ground, rows of buildings, trees, furniture, traffic and people, drawn from one random generator."""

from __future__ import annotations

import numpy as np

from streets import objects
from streets.canvas import BUILDING, FENCE, ROAD, SIDEWALK, VEGETATION, WALL, Camera, Canvas, Paint
from streets.objects import beside, facing, level
from streets.photo import Look, Row
from streets.sprites import crown, cyclist, person, two_wheeler
from streets.texture import asphalt, facade, marking, railing, rough, slabs
from streets.vehicles import vehicle

KERB = 0.12
FAR = 160.0
WALLS = [
    (150, 95, 72),
    (120, 72, 58),
    (196, 184, 158),
    (222, 218, 208),
    (168, 160, 148),
    (176, 150, 118),
    (98, 94, 92),
    (190, 172, 140),
    (140, 134, 126),
]


class Street:
    """The layout of one scene; every method draws one kind of thing."""

    def __init__(self, rng: np.random.Generator, canvas: Canvas, look: Look) -> None:
        self.rng, self.canvas, self.look = rng, canvas, look
        self.half = rng.uniform(3.0, 7.5)  # half the width of the road
        self.walk = {side: rng.uniform(1.6, 4.5) for side in (-1, 1)}
        self.crossing = rng.uniform(14, 45) if rng.random() < 0.4 else None
        self.rows = {side: Row(side * (self.half + self.walk[side])) for side in (-1, 1)}
        self.busy = rng.uniform(0.4, 1.5)
        self.leaf = np.array([72.0, 92, 40]) * rng.uniform(0.6, 1.2) * rng.uniform(0.85, 1.15, 3)
        self.bare = rng.choice([0.0, 0.3, 0.7, 1.0])  # the share of trees without leaves
        brown = self.bare * rng.uniform(0.3, 0.8)
        self.far_leaf = (1 - brown) * self.leaf + brown * rng.uniform(60, 110) * np.array([1.0, 0.88, 0.78])
        self.verge = {s: rng.uniform(0.4, 0.7) * self.walk[s] * float(rng.random() < 0.2) for s in (-1, 1)}
        self.open = {s: bool(rng.random() < 0.15) for s in (-1, 1)}  # a car park instead of a row
        self.trees: list[tuple[float, float, float]] = []

    def draw(self) -> None:
        """Draw everything."""
        for side in (-1, 1):
            self.buildings(side)
        self.ground()
        self.backdrop()
        for side in (-1, 1):
            self.furniture(side)
            self.people(side)
        self.traffic()
        for z, x, height in sorted(self.trees, reverse=True):  # last and back to front: crowns are partly transparent
            objects.tree(self.canvas, self.rng, x, z, height, self.leaf, bool(self.rng.random() < self.bare))

    def ground(self) -> None:
        """Road, markings, kerbs and pavements."""
        rng, half = self.rng, self.half
        tone = rng.uniform(82, 132) * np.array([1.0, 1.0, 1.02]) * rng.uniform(0.97, 1.03, 3)
        self.canvas.poly(level(-half, half, 0.2, 2 * FAR), asphalt(rng, tone, half), ROAD)
        stone = rng.uniform(105, 165) * np.array([1.02, 1.0, 0.96]) * rng.uniform(0.95, 1.05, 3)
        lot = asphalt(rng, tone * rng.uniform(0.9, 1.15), 4.0)
        grass = rough(self.leaf * rng.uniform(1.0, 1.5), 0.15, 2.5, 1)
        spans = [(0.2, 2 * FAR)]
        if self.crossing:
            spans = [(0.2, self.crossing), (self.crossing + 8, 2 * FAR)]
            surface = asphalt(rng, tone * rng.uniform(0.9, 1.1), 4.0)
            for x0, x1 in ((-90, -half), (half, 90)):
                self.canvas.poly(level(x0, x1, self.crossing, self.crossing + 8), surface, ROAD)
        self.markings()
        for side in (-1, 1):
            paving = slabs(rng, stone * rng.uniform(0.9, 1.1))
            for z0, z1 in spans:
                edge = side * half
                back = self.rows[side].x if self.open[side] else edge + side * 60
                left, right = sorted((edge, back))
                self.canvas.poly(level(left, right, z0, z1, KERB), paving, SIDEWALK)
                left, right = sorted((edge, edge + side * 0.15))
                kerbstone = rough(stone * 1.12, 0.05, 3.0)
                self.canvas.poly(level(left, right, z0, z1, KERB), kerbstone, SIDEWALK, overlay=True)
                if self.open[side]:
                    left, right = sorted((back, back + side * 60))
                    self.canvas.poly(level(left, right, z0, z1), lot, ROAD)
                if self.verge[side]:
                    left, right = sorted((edge + side * 0.15, edge + side * (0.15 + self.verge[side])))
                    self.canvas.poly(level(left, right, z0, z1, KERB), grass, VEGETATION, overlay=True)
                self.canvas.poly(beside(edge, z0, z1, 0, KERB), stone * 0.75, SIDEWALK)

    def markings(self) -> None:
        """Centre and lane lines, edge lines, zebra or stop line, arrows."""
        rng, half = self.rng, self.half

        def line(x0: float, x1: float, z0: float, z1: float, paint: Paint) -> None:
            self.canvas.poly(level(x0, x1, z0, z1), paint, ROAD, overlay=True)

        white = marking(rng, np.array([215.0, 215, 210]) * rng.uniform(0.8, 1.05))
        yellow = marking(rng, np.array([190.0, 160, 70]))
        if rng.random() < 0.12:
            return
        centers = [0.0] if half < 5.2 else [0.0, -half / 2, half / 2]
        dash, gap = rng.uniform(1.5, 4.0), rng.uniform(2.0, 6.0)
        for i, x in enumerate(centers):
            if i == 0 and rng.random() < 0.25:
                line(x - 0.07, x + 0.07, 1, FAR, white)
                continue
            for z in np.arange(rng.uniform(0, dash + gap) - 3, 75, dash + gap):
                line(x - 0.07, x + 0.07, max(z, 0.4), max(z, 0.4) + dash, white)
        if rng.random() < 0.65:
            tint, double = (yellow, True) if rng.random() < 0.4 else (white, False)
            for side in (-1, 1):
                for x in (half - 0.35, half - 0.6)[: 1 + double]:
                    line(side * x - 0.05, side * x + 0.05, 0.4, FAR, tint)
        near = self.crossing - 4 if self.crossing else rng.uniform(6, 30)
        choice = rng.random() * (0.6 if self.crossing else 1.0)
        if choice < 0.22:
            for x in np.arange(-half + 0.4, half - 0.6, 1.0):
                line(x, x + 0.5, near, near + 2.8, white)
        elif choice < 0.5:
            line(-half + 0.2, 0, near, near + 0.35, white)
        elif choice < 0.65:
            z, x = rng.uniform(6, 16), rng.uniform(0.4, 0.6) * half
            for side in (-1, 1):
                line(side * x - 0.08, side * x + 0.08, z, z + 2, white)
                tip = [(side * x - 0.4, 0, z + 2), (side * x + 0.4, 0, z + 2), (side * x, 0, z + 3.4)]
                self.canvas.poly(tip, white, ROAD, overlay=True)

    def buildings(self, side: int) -> None:
        """A row of houses with gaps; gaps hold walls, fences, hedges and trees."""
        rng, row = self.rng, self.rows[side]
        z, dense = rng.uniform(-12, 3), 0.0 if self.open[side] else rng.choice([0.92, 0.92, 0.7, 0.35])
        tall = rng.uniform(5.5, 16)
        while z < FAR:
            length = rng.uniform(6, 22)
            if self.crossing and z < self.crossing + 9 and z + length > self.crossing - 1:
                z1 = self.crossing - 1
                if z1 - z > 5:
                    length = z1 - z
                else:
                    z = self.crossing + 9.5
                    continue
            if rng.random() < dense:
                height = float(np.clip(tall * rng.uniform(0.7, 1.35), 4.5, 30))
                self.house(side, z, z + length, height, row.x + side * rng.choice([0, 0, 0.4, rng.uniform(0, 6)]))
                row.add(z, z + length, height)
            else:
                self.gap(side, z, z + length)
            z += length + rng.choice([0, 0, 0.02, rng.uniform(0, 4)])

    def house(self, side: int, z0: float, z1: float, height: float, x: float) -> None:
        """One house: facade to the street, its near end wall, and a flat or pitched roof."""
        rng, canvas = self.rng, self.canvas
        wall = np.array(WALLS[rng.integers(len(WALLS))], float) * rng.uniform(0.75, 1.12) * rng.uniform(0.94, 1.06, 3)
        deep = x + side * rng.uniform(8, 14)
        glass = self.look.sky
        canvas.poly(beside(x, z0, z1, 0, height), facade(rng, height, wall, glass), BUILDING)
        end = facade(rng, height, wall * 0.95, glass, plain=bool(rng.random() < 0.6))
        canvas.poly(facing(x, deep, 0, height, z0), end, BUILDING)
        if rng.random() < 0.55:
            tile = np.array([(92, 62, 52), (70, 70, 76), (110, 80, 62)][rng.integers(3)], float)
            up, middle = rng.uniform(1.5, 4), (x + deep) / 2
            eave = x - side * 0.35
            top = height + up
            slope = [(eave, height, z0), (eave, height, z1), (middle, top, z1), (middle, top, z0)]
            canvas.poly(slope, rough(tile, 0.12, 4.0, 1), BUILDING)
            gable = [(x, height, z0), (deep, height, z0), (middle, top, z0)]
            canvas.poly(gable, rough(wall * 0.95, 0.1, 9.0), BUILDING)
            for _ in range(int(rng.integers(0, 3))):
                at = rng.uniform(z0, z1 - 0.6)
                left, right = sorted((middle - side * 0.4, middle + side * 0.5))
                chimney = top + rng.uniform(0.6, 1.6)
                corners = (left, height + up * 0.5, at), (right, chimney, at + 0.8)
                canvas.box(*corners, rough(wall * 0.8, 0.1, 3.0), BUILDING)

    def gap(self, side: int, z0: float, z1: float) -> None:
        """Fill a gap between houses: wall, fence, hedge, trees."""
        rng, canvas, x = self.rng, self.canvas, self.rows[side].x
        kind, height = rng.random(), rng.uniform(0.9, 2.4)
        quad = beside(x, z0, z1, 0, height)
        if self.open[side]:
            pass
        elif kind < 0.4:
            stone = np.array([(150, 105, 85), (160, 155, 142), (125, 118, 108)][rng.integers(3)], float)
            canvas.poly(quad, facade(rng, 1.0, stone, self.look.sky, plain=True), WALL)
        elif kind < 0.8:
            tint = np.array([(40, 45, 42), (120, 90, 60), (190, 190, 185), (70, 80, 75)][rng.integers(4)], float)
            canvas.poly(quad, railing(tint, rng.uniform(0.11, 0.17), height, bool(rng.random() < 0.5)), FENCE)
        else:
            canvas.poly(quad, crown(rng, 1e4, 1e4, self.leaf, 9.0), VEGETATION)
        for z in np.arange(z0 + 1.5, z1, rng.uniform(3.5, 9)):
            if z > 2 and rng.random() < (0.35 if self.open[side] else 1.0):
                self.trees.append((z, x + side * rng.uniform(2, 6), rng.uniform(4.5, 11)))

    def backdrop(self) -> None:
        """The end of the street, and buildings and trees behind the rows."""
        rng, canvas = self.rng, self.canvas
        built = rng.choice([0.2, 0.5, 0.8])
        for _ in range(int(rng.integers(8, 16))):
            x, z = rng.uniform(-90, 90), rng.uniform(85, FAR)
            w, h = rng.uniform(12, 30), rng.uniform(5, 16)
            if rng.random() < built:
                wall = rng.uniform(90, 190) * rng.uniform(0.9, 1.1, 3)
                canvas.poly(facing(x, x + w, 0, h, z), facade(rng, h, wall, self.look.sky), BUILDING)
            else:
                dense = 3.0 - 1.6 * self.bare
                canvas.poly(facing(x, x + w, -h, h, z), crown(rng, w, 2 * h, self.far_leaf, dense), VEGETATION)

    def furniture(self, side: int) -> None:
        """Trees, lamps, poles, signs, lights and railings along the kerb."""
        rng, canvas, edge = self.rng, self.canvas, side * (self.half + 0.5)
        if rng.random() < 0.45:
            for z in np.arange(rng.uniform(4, 16), 80, rng.uniform(8, 22)):
                self.trees.append((float(z), edge + side * 0.6, rng.uniform(5, 10)))
        for z in np.arange(rng.uniform(6, 25), 110, rng.uniform(18, 32)):
            objects.lamp(canvas, rng, edge, z, -side)
        for _ in range(rng.poisson(2.8)):
            objects.sign(canvas, rng, edge + rng.uniform(-0.2, 0.6), 4 + rng.gamma(2.0, 10.0))
        for _ in range(rng.poisson(1.5)):
            post = rng.uniform(4, 40)
            objects.column(canvas, edge, post, 0, rng.choice([1.0, 1.0, 4.0]), 0.07, rng.uniform(25, 130) * np.ones(3))
        lights = [self.crossing - 1] if self.crossing and rng.random() < 0.6 else []
        for at in [*lights, *(6 + rng.gamma(2.0, 9.0, rng.poisson(0.7)))]:
            objects.traffic_light(canvas, rng, edge, float(at), side)
        if rng.random() < 0.15:
            z0, tint = rng.uniform(2, 20), rng.uniform(40, 190) * np.ones(3)
            canvas.poly(beside(edge, z0, z0 + 12, KERB, 1.15), railing(tint, 0.15, 1.0, False), FENCE)

    def people(self, side: int) -> None:
        """Pedestrians and parked two-wheelers on the pavement."""
        rng, canvas, base = self.rng, self.canvas, KERB
        light = 0.5 * float(canvas.diffuse > 0) * -float(np.sign(canvas.sun[0]))
        for _ in range(rng.poisson(5 * self.busy)):
            x, z = side * (self.half + rng.uniform(0.3, self.walk[side] + 0.3)), 3.5 + rng.gamma(2.0, 8.0)
            for _ in range(1 + int(rng.random() < 0.3)):
                objects.place(canvas, person(rng), x, z, rng.uniform(-0.6, 0.6) + np.pi * rng.integers(2), light, base)
                x, z = x + rng.uniform(0.5, 0.7), z + rng.uniform(-0.2, 0.4)
        for _ in range(rng.poisson(1.5)):
            z = rng.uniform(4, 25)
            motor = rng.random() < 0.3
            for k in range(int(rng.integers(1, 4))):
                x = side * (self.half + rng.uniform(0.3, self.walk[side]))
                parked = two_wheeler(rng, bool(motor), False)
                objects.place(canvas, parked, x, z + 0.6 * k, rng.uniform(-1.2, 1.2), light, base)

    def traffic(self) -> None:
        """Moving and parked cars, buses, riders."""
        rng, canvas, half = self.rng, self.canvas, self.half
        light = 0.4 * float(canvas.diffuse > 0)
        spots: list[tuple[float, float, float, str]] = []
        for side in (-1, 1):
            if rng.random() < 0.45 and half > 3.8:
                z = rng.uniform(3, 14)
                while z < 80:
                    if rng.random() < 0.7:
                        spots.append((side * (half - 1.05), z, 0.0 if rng.random() < 0.5 else np.pi, "parked"))
                    z += rng.uniform(5.4, 7.0)
            if self.open[side]:
                for row in (3.0, 14.0, 20.0):
                    for z in np.arange(rng.uniform(5, 12), 70, 2.7):
                        if rng.random() < 0.6:
                            spots.append((self.rows[side].x + side * row, float(z), side * np.pi / 2, "parked"))
        lane = max(half * 0.45 - 0.6, 1.3) if half > 3.8 else 1.4
        for direction in (-1, 1):
            z = rng.uniform(7, 30)
            while z < 100:
                if rng.random() < 0.5 * self.busy:
                    spots.append((direction * lane, z, 0.0 if direction == self.look.drive else np.pi, "moving"))
                z += rng.uniform(8, 22)
        if self.crossing and rng.random() < 0.4:
            spots.append((rng.uniform(-8, 8), self.crossing + 3, np.pi / 2 * rng.choice([-1, 1]), "moving"))
        for x, z, heading, state in spots:
            odds = {"sedan": 0.36, "hatch": 0.4, "van": 0.16, "bus": 0.08 * float(state == "moving" and z > 10)}
            kind = str(rng.choice(list(odds), p=np.array(list(odds.values())) / sum(odds.values())))
            vehicle(canvas, rng, kind, x, z, heading + rng.normal(0, 0.03), self.look.sky)
        for _ in range(rng.poisson(2.0)):
            x, z = rng.choice([-1, 1]) * (half - rng.uniform(0.5, 2.5)), 4.5 + rng.gamma(2.0, 7.0)
            if rng.random() < 0.65:  # most riders move along the street, some in pairs
                for _ in range(1 + int(rng.random() < 0.3)):
                    objects.place(canvas, cyclist(rng), x, z, rng.normal(0, 0.3), light)
                    x, z = x + rng.uniform(-1.2, 1.2), z + rng.uniform(0.5, 4.0)
                continue
            rider = two_wheeler(rng, bool(rng.random() < 0.4), True)
            objects.place(canvas, rider, x, z, rng.normal(0, 0.9) + np.pi * rng.integers(2), light)
        for _ in range(rng.poisson(0.5)):
            walker, x, z = person(rng), rng.uniform(-half, half), rng.uniform(8, 35)
            objects.place(canvas, walker, x, z, rng.uniform(-0.5, 0.5), light)


def make_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """A camera on a car or a pedestrian's hand; slightly off the middle of the road."""
    focal, above, x = width * rng.uniform(0.75, 1.25), rng.uniform(1.2, 1.9), rng.uniform(-2.2, 2.2)
    pitch, yaw = rng.normal(0.03, 0.035), rng.normal(0, 0.09)
    return Camera(width, height, focal, above, x, pitch, yaw)
