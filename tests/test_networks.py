import pytest
import torch

from segmentation.networks import Pasted, Student, Teacher, Text, TextFusion, UNet, count_parameters
from segmentation.presets import preset


def explanation(batch: int, tokens: int = 4, width: int = 16) -> Text:
    return Text(torch.randn(batch, tokens, width), torch.ones(batch, tokens, dtype=torch.bool))


def test_reference_widths_have_the_published_numbers_of_parameters() -> None:
    spec = preset("gaze-to-insight", "reference")
    with torch.device("meta"):
        teacher = Teacher(1, spec.teacher_widths, 384, spec.text_heads)
        student = Student(1, spec.student_widths, spec.teacher_widths)
    assert count_parameters(teacher) / 1e6 == pytest.approx(44.3, rel=0.02)
    assert count_parameters(student) / 1e6 == pytest.approx(9.2, rel=0.02)


@pytest.mark.parametrize(
    ("widths", "size"),
    [((4, 8, 8, 12, 16), 48), ((0, 8, 8, 12, 16), 32), ((0, 8, 8, 12, 16), 80), ((0, 4, 8, 8, 12, 16), 64)],
)
def test_any_size_gives_logits_of_its_own_size_and_features_at_four_scales(
    widths: tuple[int, ...], size: int
) -> None:
    images = torch.randn(2, 3, size, size)
    for output in (
        UNet(3, widths)(images),
        Teacher(3, widths, 16, 4)(images, explanation(2)),
    ):
        assert output.logits.shape == (2, 3, size, size)
        assert [tuple(feature.shape) for feature in output.features] == [
            (2, width, size // 2**scale, size // 2**scale) for scale, width in list(enumerate(widths))[-4:]
        ]


def test_adapters_reach_the_teachers_widths_with_signed_values() -> None:
    student = Student(1, (0, 8, 8, 8, 8), (0, 4, 6, 10, 12))
    adapted = student.adapt(student(torch.randn(1, 3, 32, 32)).features)
    assert [feature.shape[1] for feature in adapted] == [4, 6, 10, 12]
    assert all(feature.min() < 0 for feature in adapted)


def test_folded_attention_is_multi_head_attention() -> None:
    fusion = TextFusion(12, 16, heads=3)
    image, tokens = torch.randn(2, 50, 12), torch.randn(2, 5, 12)
    allowed = torch.tensor([[True] * 5, [True, False, True, False, False]])
    whole = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        whole.in_proj_weight.copy_(torch.cat([fusion.query.weight, fusion.key_value.weight]))
        whole.out_proj.weight.copy_(fusion.out.weight)
        whole.out_proj.bias.copy_(fusion.out.bias)
        expected, _ = whole(image, tokens, tokens, key_padding_mask=~allowed)
        found = fusion._attend(image.transpose(1, 2), tokens, allowed[:, :, None])
    assert torch.allclose(found, expected, atol=1e-6)


def test_attention_to_each_word_is_that_of_multi_head_attention() -> None:
    torch.manual_seed(0)
    fusion = TextFusion(12, 16, heads=3)
    features, text = torch.randn(2, 12, 5, 7), explanation(2)
    text.valid[0, 2:] = False
    tokens, allowed = fusion._tokens(text)
    whole = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    placed = features + torch.nn.functional.interpolate(fusion.positions, (5, 7), mode="bilinear")
    with torch.no_grad():
        whole.in_proj_weight.copy_(torch.cat([fusion.query.weight, fusion.key_value.weight]))
        _, expected = whole(placed.flatten(2).transpose(1, 2), tokens, tokens, key_padding_mask=~allowed)
        found = fusion.attention(features, text)
    assert found.shape == (2, 5, 5, 7)
    assert torch.allclose(found.flatten(2), expected.transpose(1, 2), atol=1e-6)


def test_attention_sums_to_one_and_reads_the_null_token_only_where_nothing_is_said() -> None:
    teacher = Teacher(1, (0, 8, 8, 12, 16), 16, 2).eval()
    text = explanation(3)
    text.valid[1] = False
    text.valid[2, 1:] = False
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        scales = teacher.attention(images, text)
    assert [scale.shape for scale in scales] == [(3, 5, side, side) for side in (32, 16, 8, 4)]
    for scale in scales:
        assert torch.allclose(scale.sum(1), torch.ones_like(scale[:, 0]), atol=1e-6)
        assert not scale[0, 0].any() and (scale[0, 1:] > 0).all()
        assert (scale[1, 0] == 1).all() and not scale[1, 1:].any()
        assert (scale[2, 1] == 1).all() and not scale[2, 2:].any()


def test_the_strength_of_the_text_is_where_it_was_set() -> None:
    teacher = Teacher(1, (4, 8, 8, 8, 8), 16, 2, text_strength=0.0)
    assert teacher.strengths() == [0.0] * 4
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(teacher(images, explanation(1)).logits, teacher(images, explanation(1)).logits)


def test_padding_says_nothing() -> None:
    fusion = TextFusion(8, 16, 2)
    features, text = torch.randn(2, 8, 6, 6), explanation(2)
    padded = Text(
        torch.cat([text.tokens, torch.full((2, 3, 16), 7.0)], 1),
        torch.cat([text.valid, torch.zeros(2, 3, dtype=torch.bool)], 1),
    )
    assert torch.allclose(fusion(features, text), fusion(features, padded), atol=1e-6)


def test_an_image_without_explanation_reads_the_null_token() -> None:
    fusion = TextFusion(8, 16, 2)
    features = torch.randn(1, 8, 6, 6)
    silent = Text(torch.randn(1, 4, 16), torch.zeros(1, 4, dtype=torch.bool))
    (fusion(features, silent) * features).sum().backward()
    assert fusion.null.grad is not None and fusion.null.grad.any()
    fusion.zero_grad()
    (fusion(features, explanation(1)) * features).sum().backward()
    assert fusion.null.grad is not None and not fusion.null.grad.any()


def test_several_tokens_train_queries_and_keys_but_one_cannot() -> None:
    fusion = TextFusion(8, 16, 2)
    for tokens, trains in ((3, True), (1, False)):
        fusion.zero_grad()
        features = torch.randn(1, 8, 6, 6)
        (fusion(features, explanation(1, tokens)) * features).sum().backward()
        assert fusion.query.weight.grad is not None
        assert bool(fusion.query.weight.grad.abs().max() > 1e-9) is trains


def test_under_cutmix_each_place_reads_its_own_images_text() -> None:
    fusion = TextFusion(8, 16, 2)
    features, text = torch.randn(2, 8, 8, 8), explanation(2)
    region = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    region[0, :, :8] = True
    mixed = fusion(features, text, Pasted(region, torch.tensor([1, 0])))
    own = fusion(features, text)
    other = fusion(features, Text(text.tokens.flip(0), text.valid))
    assert torch.allclose(mixed[0, :, 4:], own[0, :, 4:], atol=1e-5)
    assert torch.allclose(mixed[0, :, :4], other[0, :, :4], atol=1e-5)
    assert torch.allclose(mixed[1], own[1], atol=1e-5)
    assert not torch.allclose(own[0], other[0], atol=1e-3)


def test_text_changes_what_the_teacher_says() -> None:
    torch.manual_seed(0)
    teacher = Teacher(1, (4, 8, 8, 8, 8), 16, 2)
    images = torch.randn(1, 3, 32, 32)
    first, second = (teacher(images, explanation(1)).logits for _ in range(2))
    assert (first - second).abs().max() > 1e-4
