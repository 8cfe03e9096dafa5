"""Which student and teacher a spec asks for."""

from __future__ import annotations

from segmentation.backbones import decoder_widths, make_encoder
from segmentation.job import RunSpec
from segmentation.networks import Student, Teacher
from segmentation.norms import grouped
from segmentation.public_network import PublicStudent, PublicTeacher


def make_student(spec: RunSpec, *, taught: bool = True) -> Student:
    """Build the student of a spec, its weights random yet; `taught` gives it adapters to the teacher's features."""
    if spec.architecture != "own":
        return PublicStudent(_channels(spec))
    student, teacher = _widths(spec)
    network = Student(len(spec.targets), student, teacher if taught else (), make_encoder(spec, student))
    if spec.norm == "group":
        grouped(network)
    return network


def make_teacher(spec: RunSpec, text_width: int) -> Teacher:
    """Build the teacher of a spec, its weights random yet."""
    if spec.architecture != "own":
        return PublicTeacher(_channels(spec), text_width)
    _, widths = _widths(spec)
    network = Teacher(
        len(spec.targets),
        widths,
        text_width,
        spec.text_heads,
        spec.text_strength,
        spec.fusion_scales,
        make_encoder(spec, widths),
    )
    if spec.norm == "group":
        grouped(network)
    return network


def _channels(spec: RunSpec) -> int:
    return 1 if spec.architecture == "fgi-public-grey" else 3


def _widths(spec: RunSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    widths = spec.student_widths, spec.teacher_widths
    return (decoder_widths(widths[0]), decoder_widths(widths[1])) if spec.encoder else widths
