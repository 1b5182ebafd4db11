"""Faces between the models: as bytes, of which the face encoder gets the very numbers that the alignment made."""

import numpy as np

from faceclip_serving.face.alignment import TEMPLATE, align_face, cut_face
from faceclip_serving.sampling.networks import of_crops


def test_the_face_encoder_gets_to_the_bit_what_the_alignment_made():
    photos = np.random.default_rng(5).integers(0, 256, (2, 500, 480, 3), dtype=np.uint8)
    given = {}
    run = of_crops(lambda arrays: given.update(arrays) or {"class_token": arrays["aligned_faces"].sum()})
    run({"face_crops": np.stack([cut_face(photo, TEMPLATE + 9.3) for photo in photos])})
    assert given.keys() == {"aligned_faces"} and given["aligned_faces"].dtype == np.float32
    np.testing.assert_array_equal(given["aligned_faces"], np.stack([align_face(photo, TEMPLATE + 9.3) for photo in photos]))
