"""Servers that people use, with the address each answers at when it is installed as its makers suggest."""

from __future__ import annotations

from dataclasses import dataclass

from gaze_capture.errors import UserError


@dataclass(frozen=True)
class ServerPreset:
    """A server that speaks the chat-completions protocol."""

    id: str
    name: str
    base_url: str
    hint: str
    """One sentence: how to get a model that sees."""


SERVER_PRESETS: tuple[ServerPreset, ...] = (
    ServerPreset(
        "ollama", "Ollama", "http://127.0.0.1:11434/v1",
        "Fetch a vision model with `ollama pull`, for example qwen2.5vl, and let `ollama serve` run.",
    ),
    ServerPreset(
        "lm-studio", "LM Studio", "http://127.0.0.1:1234/v1",
        "Load a model with the mark Vision, then start the server under Developer.",
    ),
    ServerPreset(
        "llama.cpp", "llama.cpp", "http://127.0.0.1:8080/v1",
        "Start `llama-server` with a model (-m) and its eyes (--mmproj).",
    ),
    ServerPreset(
        "vllm", "vLLM", "http://127.0.0.1:8000/v1",
        "Start `vllm serve` with the name of a vision model.",
    ),
    ServerPreset(
        "openai", "OpenAI", "https://api.openai.com/v1",
        "Needs a key with credit, and the name of a model that takes images.",
    ),
    ServerPreset(
        "gemini", "Google Gemini", "https://generativelanguage.googleapis.com/v1beta/openai",
        "Needs a key of Google AI Studio; this is its OpenAI-compatible address.",
    ),
    ServerPreset(
        "mistral", "Mistral", "https://api.mistral.ai/v1",
        "Needs a key, and the name of a model that takes images.",
    ),
    ServerPreset(
        "openrouter", "OpenRouter", "https://openrouter.ai/api/v1",
        "Needs a key; it passes images on to whoever runs the model that is named.",
    ),
    ServerPreset(
        "groq", "Groq", "https://api.groq.com/openai/v1",
        "Needs a key, and the name of a model that takes images.",
    ),
)  # fmt: skip


def server_preset(preset_id: str) -> ServerPreset:
    """Return a preset by its id.

    Raises
    ------
    UserError
        If there is none; the sentence names those there are.
    """
    for preset in SERVER_PRESETS:
        if preset.id == preset_id:
            return preset
    known = ", ".join(preset.id for preset in SERVER_PRESETS)
    raise UserError(f"There is no server preset {preset_id!r}; choose one of: {known}.")
