"""Losses, schedule, repeated update, metrics and pseudo labels against golden values."""

import numpy as np
import torch
from torch.nn import functional

from advent.training.optim import RepeatedSGD
from advent.utils.func import fast_hist, lr_poly, per_class_iu, prob_2_entropy
from advent.utils.loss import bce_loss, cross_entropy_2d, entropy_loss
from advent.utils.metrics import mean_iou
from daf.interaction import depth_aware_map
from daf.loss import berhu
from golden.golden import close, load, normal, probe
from helpers.device import DEVICE
from ida.pseudo_labels import pseudo_label
from ida.ranking import ranking_scores


def labels_with_ignored(seed, shape, num_classes, extra):
    labels = np.random.RandomState(seed).randint(0, num_classes + extra, shape)
    labels[labels >= num_classes] = 255
    return labels


def test_losses_and_gradients():
    golden = load("losses")
    logits = normal(10, 2, 16, 17, 23, scale=2).requires_grad_()
    labels = torch.from_numpy(labels_with_ignored(11, (2, 17, 23), 16, 3)).to(DEVICE)
    loss = cross_entropy_2d(logits, labels)
    loss.backward()
    close(loss.item(), golden["cross_entropy"])
    probe(logits.grad, golden["cross_entropy_grad"])
    probs = logits.detach().softmax(1)
    probe(prob_2_entropy(probs), golden["prob_2_entropy"])
    close(entropy_loss(probs), golden["entropy_loss"])
    depth = normal(12, 1, 1, 17, 23, scale=3).requires_grad_()
    loss = berhu(depth, normal(13, 1, 17, 23, scale=3).abs())
    loss.backward()
    close(loss.item(), golden["berhu"])
    probe(depth.grad, golden["berhu_grad"])
    domain_logits = normal(14, 1, 1, 5, 7, scale=2)
    close(bce_loss(domain_logits, 0), golden["bce_source_0"])
    close(bce_loss(domain_logits, 1), golden["bce_target_1"])
    depth_map = depth_aware_map(logits.detach()[:1], normal(15, 1, 1, 17, 23).abs())
    probe(depth_map, golden["depth_aware_map_of_first_image"])
    close(ranking_scores(logits.detach()[:1], normal(15, 1, 1, 17, 23).abs()), [golden["ranking_score_of_first_image"]])


def test_schedule():
    golden = load("schedule")
    for iteration, rate in golden["values"]:
        close(lr_poly(golden["base_lr"], iteration, golden["max_iters"], golden["power"]), rate)


def test_repeated_update():
    golden = load("repeated_sgd")
    for repeats, steps in golden["after_each_of_3_steps"].items():
        w = torch.nn.Parameter(torch.tensor(golden["start"], dtype=torch.float64, device=DEVICE))
        optimizer = RepeatedSGD([{"params": [w], "repeats": int(repeats)}], lr=1.0, momentum=0.9, weight_decay=5e-4)
        for step, want in enumerate(steps):
            optimizer.param_groups[0]["lr"] = lr_poly(2.5e-4, step, 10, 0.9)
            w.grad = torch.cos(w.detach() * (step + 1))
            optimizer.step()
            close(w.detach(), want)


def test_metrics():
    golden = load("metrics")
    labels = labels_with_ignored(20, (40, 50), 16, 2)
    other = np.random.RandomState(21).randint(0, 16, (40, 50))
    preds = np.where((np.random.RandomState(22).rand(40, 50) < 0.6) & (labels != 255), labels, other)
    hist = fast_hist(labels, preds, 16)
    close(hist, golden["hist"])
    close(per_class_iu(hist), golden["iou"])
    close(mean_iou(per_class_iu(hist)), golden["miou_percent"])


def test_pseudo_labels():
    golden = load("pseudo_labels")
    logits = normal(50, 1, 16, 9, 11, scale=4)
    logits = functional.interpolate(logits, size=(33, 41), mode="bilinear", align_corners=True)
    kept = pseudo_label(logits, golden["threshold"])[0]
    probe(kept, golden["labels"])
    close((kept != 255).double().mean(), golden["kept_fraction"])
    probe(pseudo_label(logits)[0], golden["argmax_labels"])
