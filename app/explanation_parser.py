"""The commands about explanations, as the command line takes them."""

from __future__ import annotations

from pathlib import Path

from app import (
    claims_commands,
    explain_commands,
    preset_commands,
    sending_commands,
    text_commands,
)
from app.argument_types import annotator, count, margin, not_negative, positive, yes
from app.commands import AddCommand
from app.shared_options import add_run_option, add_split_option
from segmentation.server_presets import SERVER_PRESETS


def add_explanation_commands(add: AddCommand) -> None:
    """Add everything between pseudo-masks and training."""
    explain = add("explain", explain_commands.explain, "say why the fixated region matters", study=False)
    explain.set_defaults(usage_error=explain.error)
    explain.add_argument("study", type=Path, nargs="?", metavar="STUDY", help="the study's folder")
    explain.add_argument(
        "--backend",
        choices=("measured", "annotator", "openai", "transformers"),
        help="default: openai where a server is named, else measured",
    )
    where = explain.add_mutually_exclusive_group()
    where.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server")
    where.add_argument(
        "--server",
        choices=[preset.id for preset in SERVER_PRESETS],
        help="a well-known server at its usual address",
    )
    explain.add_argument(
        "--model",
        metavar="NAME",
        help="the server's model; the folder of a local one; whose own words are read",
    )
    explain.add_argument(
        "--device", metavar="D", default="auto", help="of a local model: auto, cpu, cuda, cuda:N or mps"
    )
    explain.add_argument(
        "--dtype", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of a local model"
    )
    explain.add_argument("--split", metavar="NAME")
    explain.add_argument("--images", nargs="+", metavar="ID", help="only these images")
    explain.add_argument(
        "--overwrite", action="store_true", help="ask again, also what was asked, edited or approved before"
    )
    explain.add_argument(
        "--concurrency",
        type=int,
        choices=range(1, 17),
        default=2,
        metavar="N",
        help="questions asked of a server at once, 1 to 16",
    )
    explain.add_argument("--timeout", type=positive, metavar="S", help="seconds one request may take")
    explain.add_argument(
        "--price",
        type=not_negative,
        nargs=2,
        metavar=("IN", "OUT"),
        help="of a million tokens to and from the server, to estimate what it costs",
    )
    explain.add_argument(
        "--test-connection",
        action="store_true",
        help="ask the server about a made-up picture instead, and say what is wrong; needs no STUDY",
    )

    presets = add(
        "explanation-presets",
        preset_commands.explanation_presets,
        "list what explanations can be asked for; show, check or copy a preset",
        study=False,
    )
    presets.add_argument("study", type=Path, nargs="?", metavar="STUDY", help="whose own presets count, too")
    preset_action = presets.add_mutually_exclusive_group()
    preset_action.add_argument("--show", metavar="ID", help="its file, attributes and prompt")
    preset_action.add_argument("--schema", metavar="ID", help="its JSON schema, with all attributes")
    preset_action.add_argument("--copy", metavar="ID", help="into the study, to be changed there")
    preset_action.add_argument(
        "--check", type=Path, metavar="FILE.json", help="say what is wrong with a preset"
    )
    presets.add_argument("--as", dest="new_id", metavar="NEWID", help="the copy's id; default: the same")

    asking = add(
        "explanation-settings",
        preset_commands.explanation_settings,
        "show or change what a study's explanations are asked by, and what a model is shown",
    )
    asking.add_argument("--preset", metavar="ID")
    asking.add_argument(
        "--stated", nargs="*", metavar="TECHNIQUE", help="such as NBI; without one: nothing is stated"
    )
    asking.add_argument("--drawn", choices=("contour", "heatmap", "both", "nothing"), help="of the gaze")
    asking.add_argument(
        "--crop", type=margin, metavar="MARGIN|none", help="around the gazed region, in shares of its size"
    )
    asking.add_argument("--fixations-in-words", type=yes, metavar="yes|no", help="list them in the prompt")
    asking.add_argument("--side-px", type=count, metavar="N", help="the picture's largest side")
    asking.add_argument("--mask-text", type=yes, metavar="yes|no", help="blank what looks like text")
    sending = add(
        "allow-sending",
        sending_commands.allow_sending,
        "show what would leave for a server on another machine, and allow it",
    )
    sending.add_argument("--base-url", required=True, metavar="URL", help="of the server")
    sending.add_argument(
        "--image", metavar="ID", help="the example to show; default: the first that has gaze"
    )
    sending.add_argument("--target", metavar="ID", help="default: the first that has gaze")
    sending.add_argument(
        "--preview", type=Path, metavar="DIR", help="write the very picture and words that would leave"
    )
    sending.add_argument("--annotator", type=annotator, metavar="A", help="default: the user's name")
    sending.add_argument("--download", action="store_true", help="allow fetching models; nothing leaves")
    said = sending.add_mutually_exclusive_group()
    said.add_argument(
        "--yes",
        nargs="?",
        const="",
        metavar="CODE",
        help="allow it, with the code that the preview names (a download needs none); without, it is only shown",
    )
    said.add_argument("--withdraw", action="store_true", help="nothing more may be sent there")

    key = add(
        "server-key",
        sending_commands.server_key,
        "keep a server's key in the system's keyring; it is typed in, or read from stdin",
        study=False,
    )
    key.add_argument("--base-url", required=True, metavar="URL", help="of the server, and of no other")
    key.add_argument("--forget", action="store_true", help="take it out of the keyring")

    encoder = add(
        "text-encoder", text_commands.text_encoder, "show or choose what turns phrases into vectors"
    )
    chosen = encoder.add_mutually_exclusive_group()
    chosen.add_argument(
        "--folder", type=Path, metavar="DIR", help="a Hugging Face text encoder on this computer"
    )
    chosen.add_argument("--default", action="store_true", help="back to all-MiniLM-L6-v2")
    chosen.add_argument("--embed", action="store_true", help="encode what is new, with the study's own")

    embeddings = add(
        "import-embeddings",
        text_commands.import_embeddings,
        "copy text embeddings made elsewhere into a study",
    )
    embeddings.add_argument(
        "folder", type=Path, metavar="DIR", help="one .npy file for each image, of its name"
    )
    embeddings.add_argument("--name", default="text", metavar="N", help="what runs call them; default: text")
    embeddings.add_argument("--target", metavar="ID", help="whom they speak of; default: the first target")
    embeddings.add_argument("--split", metavar="NAME", help="only images of this split")
    embeddings.add_argument(
        "--token-axis", type=int, choices=(0, 1), default=0, help="which axis counts tokens; default: 0"
    )
    embeddings.add_argument("--width", type=count, metavar="D", help="default: what most files have")

    explanations = add(
        "explanations", claims_commands.explanations, "check what was said against what is measured"
    )
    explanations.add_argument(
        "--image", nargs="+", metavar="ID", help="only these images, each with its claims"
    )
    explanations.add_argument("--split", metavar="NAME")
    explanations.add_argument("--contradictions", action="store_true", help="list every contradicted claim")
    explanations.add_argument(
        "--against",
        choices=("gaze", "masks"),
        default="gaze",
        help="measure the gazed region, or the true masks in its place",
    )
    describe = add(
        "describe", claims_commands.describe, "keep what a clinician says of an image in their own words"
    )
    describe.add_argument("image", nargs="?", metavar="IMAGE", help="its id")
    describe.add_argument("--annotator", required=True, metavar="A", help="a pseudonym, not a name")
    told = describe.add_mutually_exclusive_group(required=True)
    told.add_argument("--words", metavar="TEXT")
    told.add_argument("--file", type=Path, metavar="CSV", help="columns image and words, of many images")
    describe.add_argument("--target", metavar="ID", help="what is described; default: the first target")
    describe.add_argument(
        "--note", metavar="RECORDING/FILE", help="the voice note that the words were written down from"
    )

    text_use = add("text-use", text_commands.text_use, "measure whether the teacher uses what it reads")
    add_run_option(text_use)
    add_split_option(text_use, help="default: all images that are explained")
    text_use.add_argument("--images", type=count, metavar="N", help="at most so many of them")
    text_use.add_argument("--device", default="auto", metavar="D")
