"""Small widgets that every page is made of."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QRect, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QFontMetrics, QMouseEvent, QPainter, QPaintEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionFrame,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme

NOTICE_MS = 6000
"""How long good news stay; errors stay until they are closed."""
BANNER_WIDTH = 616
ABOVE_FOOT = 40


def label(text: str = "", role: str = "", *, wrap: bool = False) -> QLabel:
    """Return a text; `role` is one of the style sheet's: muted, warning, danger, good, key."""
    result = QLabel(text)
    result.setTextFormat(Qt.TextFormat.PlainText)
    if role:
        result.setProperty("role", role)
    if wrap:
        result.setWordWrap(True)
        # A wrapped label asks for the width of its longest line; the layout should decide instead.
        result.setMinimumWidth(1)
    return result


def heading(text: str = "", pixels: int = 16) -> QLabel:
    """Return a heading, 16 or 20 pixels high."""
    result = label(text)
    result.setFont(theme.heading_font(pixels))
    return result


def set_role(widget: QWidget, role: str) -> None:
    """Change a widget's role and have the style sheet look at it again."""
    if widget.property("role") != role:
        widget.setProperty("role", role)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def line() -> QFrame:
    """Return a hairline."""
    result = QFrame()
    result.setObjectName("line")
    return result


def scrolled(body: QWidget) -> QScrollArea:
    """Return a panel that scrolls downwards when its content is taller than the window."""
    result = QScrollArea()
    result.setWidgetResizable(True)
    result.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    result.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    result.setWidget(body)
    return result


def box(
    layout: QLayout, *, margins: tuple[int, int, int, int] = (0, 0, 0, 0), spacing: int = theme.NORMAL
) -> QLayout:
    """Give a layout its margins (left, top, right, bottom) and spacing."""
    layout.setContentsMargins(*margins)
    layout.setSpacing(spacing)
    return layout


def clear(layout: QLayout) -> None:
    """Take everything out of a layout and delete it."""
    while layout.count():
        item = layout.takeAt(0)
        assert item is not None
        if (widget := item.widget()) is not None:
            widget.hide()
            widget.deleteLater()
        elif (inner := item.layout()) is not None:
            clear(inner)


class Button(QPushButton):
    """A push button with an icon that follows the theme."""

    def __init__(
        self, text: str, icon: str = "", role: str = "", on_click: Callable[[], object] | None = None
    ) -> None:
        super().__init__(text)
        self._icon = icon
        if role:
            self.setProperty("role", role)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setIconSize(QSize(theme.ICON_SIZE, theme.ICON_SIZE))
        if on_click is not None:
            self.clicked.connect(lambda _checked=False: on_click())
        self._paint_icon()

    def set_icon(self, icon: str) -> None:
        """Show another icon."""
        self._icon = icon
        self._paint_icon()

    def _paint_icon(self) -> None:
        if self._icon:
            tokens = theme.current()
            colours = {"primary": tokens.on_accent, "plain": tokens.accent, "danger": tokens.danger}
            self.setIcon(theme.icon(self._icon, colours.get(str(self.property("role")))))

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icon anew in the new palette."""
        if event.type() == QEvent.Type.PaletteChange:
            self._paint_icon()
        super().changeEvent(event)


class IconButton(QToolButton):
    """A button of an icon alone, its tooltip naming the key; `colour` fixes it on dark ground."""

    def __init__(
        self,
        icon: str,
        tip: str,
        *,
        text: str = "",
        role: str = "",
        colour: str | None = None,
        on_click: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._icon = icon
        self._colour = colour
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setProperty("role", role)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setIconSize(QSize(theme.ICON_SIZE, theme.ICON_SIZE))
        self.setFixedHeight(28)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        if text:
            self.setText(text)
            self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        else:
            self.setFixedWidth(32)
        if on_click is not None:
            self.clicked.connect(lambda _checked=False: on_click())
        self._paint_icon()

    def set_icon(self, icon: str) -> None:
        """Show another icon."""
        if icon != self._icon:
            self._icon = icon
            self._paint_icon()

    def _paint_icon(self) -> None:
        tokens = theme.current()
        # On ground that stays dark, so does the accent of the dark mode.
        active = theme.DARK.accent if self._colour else tokens.accent
        self.setIcon(theme.icon(self._icon, self._colour or tokens.muted, active=active))

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icon anew in the new palette."""
        if event.type() == QEvent.Type.PaletteChange:
            self._paint_icon()
        super().changeEvent(event)


class IconLabel(QLabel):
    """An icon that stands by itself, in the colour of a token."""

    def __init__(self, icon: str, token: str = "muted", size: int = theme.ICON_SIZE) -> None:
        super().__init__()
        self._icon, self._token, self._size = icon, token, size
        self.setFixedSize(size, size)
        self._paint_icon()

    def set_icon(self, icon: str, token: str) -> None:
        """Show another icon or colour."""
        if (icon, token) != (self._icon, self._token):
            self._icon, self._token = icon, token
            self._paint_icon()

    def _paint_icon(self) -> None:
        colour = getattr(theme.current(), self._token)
        self.setPixmap(theme.icon(self._icon, colour).pixmap(self._size, self._size))

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icon anew in the new palette."""
        if event.type() == QEvent.Type.PaletteChange:
            self._paint_icon()
        super().changeEvent(event)


class ElidedLabel(QWidget):
    """One line of text that is cut in its middle where space ends; the tooltip has all of it."""

    def __init__(self, text: str = "", role: str = "") -> None:
        super().__init__()
        self._text = text
        self._role = role
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(40)
        self.setToolTip(text)

    def text(self) -> str:
        """Return the whole text."""
        return self._text

    def setText(self, text: str) -> None:
        """Show another text."""
        if text != self._text:
            self._text = text
            self.setToolTip(text)
            self.setAccessibleName(text)
            self.updateGeometry()
            self.update()

    def setFont(self, font: object) -> None:
        """Use another font."""
        super().setFont(font)  # type: ignore[arg-type]
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        """Ask for the whole text's width."""
        metrics = QFontMetrics(self.font())
        return QSize(metrics.horizontalAdvance(self._text) + 2, metrics.height() + 2)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw what fits."""
        painter = QPainter(self)
        tokens = theme.current()
        painter.setPen(QColor(tokens.muted if self._role == "muted" else tokens.text))
        metrics = QFontMetrics(self.font())
        text = metrics.elidedText(self._text, Qt.TextElideMode.ElideMiddle, self.width())
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)
        painter.end()


class NameField(QLineEdit):
    """A field whose text is cut in its middle where space ends, until it is typed in; the tooltip has all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.textChanged.connect(self.setToolTip)

    @property
    def shown(self) -> str:
        """The text as far as it is seen."""
        if self.hasFocus():
            return self.text()
        return self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideMiddle, self._room().width())

    def _room(self) -> QRect:
        option = QStyleOptionFrame()
        self.initStyleOption(option)
        return (
            self.style()
            .subElementRect(QStyle.SubElement.SE_LineEditContents, option, self)
            .adjusted(2, 0, -2, 0)
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the name, cut where it must be."""
        if self.shown == self.text():
            super().paintEvent(event)
            return
        option = QStyleOptionFrame()
        self.initStyleOption(option)
        painter = QPainter(self)
        self.style().drawPrimitive(QStyle.PrimitiveElement.PE_PanelLineEdit, option, painter, self)
        painter.setPen(self.palette().color(QPalette.ColorRole.Text))
        painter.drawText(self._room(), Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, self.shown)
        painter.end()


class Pill(QWidget):
    """A word on a tinted ground, with a dot: a state that colour alone does not tell."""

    def __init__(self, text: str = "", token: str = "muted") -> None:
        super().__init__()
        self._text, self._token = text, token
        font = self.font()
        font.setPixelSize(12)
        self.setFont(font)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def set(self, text: str, token: str) -> None:
        """Show another word in the colour of a token."""
        if (text, token) != (self._text, self._token):
            self._text, self._token = text, token
            self.setAccessibleName(text)
            self.updateGeometry()
            self.update()

    def sizeHint(self) -> QSize:
        """Ask for the word's size."""
        metrics = QFontMetrics(self.font())
        return QSize(metrics.horizontalAdvance(self._text) + 30, 22)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw ground, dot and word."""
        painter = QPainter(self)
        paint_pill(painter, QRectF(self.rect()), self._text, self._token)
        painter.end()


def paint_pill(painter: QPainter, area: QRectF, text: str, token: str) -> None:
    """Draw a pill into an area; lists use it in their rows."""
    tokens = theme.current()
    colour = getattr(tokens, token)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(theme.blend(colour, tokens.surface, 0.14)))
    painter.drawRoundedRect(area, area.height() / 2, area.height() / 2)
    painter.setBrush(QColor(colour))
    painter.drawEllipse(QRectF(area.left() + 9, area.center().y() - 3, 6, 6))
    painter.setPen(QColor(tokens.text))
    painter.drawText(area.adjusted(20, 0, -8, 0), Qt.AlignmentFlag.AlignVCenter, text)


class Card(QFrame):
    """A framed group; the whole of it can be clicked where `clickable`."""

    clicked = Signal()

    def __init__(self, *, clickable: bool = False) -> None:
        super().__init__()
        self.setObjectName("card")
        self._clickable = clickable
        if clickable:
            self.setCursor(Qt.CursorShape.PointingHandCursor)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Tell of a click."""
        if (
            self._clickable
            and event.button() == Qt.MouseButton.LeftButton
            and self.rect().contains(event.pos())
        ):
            self.clicked.emit()


class EmptyState(QWidget):
    """A small icon, one sentence, one button."""

    acted = Signal()

    def __init__(self, icon: str, sentence: str, button: str = "") -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        box(layout, margins=(theme.HUGE,) * 4, spacing=theme.LARGE)
        self.icon = IconLabel(icon, "muted", 40)
        self.sentence = label(sentence)
        self.sentence.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.button = Button(button, role="primary", on_click=self.acted.emit)
        layout.addStretch(2)
        for widget in (self.icon, self.sentence, self.button):
            layout.addWidget(widget, 0, Qt.AlignmentFlag.AlignHCenter)
        # Only now: shown without a parent it would be a window of its own for a moment, and take the keys.
        self.button.setVisible(bool(button))
        layout.addStretch(3)

    def set(self, icon: str, sentence: str, button: str = "") -> None:
        """Show another reason for emptiness."""
        self.icon.set_icon(icon, "muted")
        self.sentence.setText(sentence)
        self.button.setText(button)
        self.button.setVisible(bool(button))


class Banner(QFrame):
    """A message that floats over its parent's foot, blocks nothing and moves nothing; `Details` where there are any."""

    details_wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("banner")
        layout = QHBoxLayout(self)
        box(layout, margins=(theme.LARGE, theme.NORMAL, theme.NORMAL, theme.NORMAL), spacing=theme.NORMAL)
        self._icon = IconLabel("warning-circle", "danger")
        self.text = label(wrap=True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._details = ""
        self._of: QWidget | None = None
        self.details = Button(
            self.tr("Details"), role="plain", on_click=lambda: self.details_wanted.emit(self._details)
        )
        close = IconButton("x", self.tr("Close this message"), on_click=self.hide)
        layout.addWidget(self._icon)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.details)
        layout.addWidget(close)
        self._fading = QTimer(self, singleShot=True, interval=NOTICE_MS)
        self._fading.timeout.connect(self.hide)
        self.hide()

    def show_error(self, sentence: str, details: str = "", of: QWidget | None = None) -> None:
        """Show what went wrong; `of` is the page that it means nothing beyond."""
        self._show("warning-circle", "danger", sentence, details, of)

    def leave(self, page: QWidget | None) -> None:
        """Hide what means nothing beyond a page that is left."""
        if page is not None and self._of is page:
            self.hide()

    def show_notice(self, sentence: str, details: str = "") -> None:
        """Show what was done."""
        self._show("check-circle", "accent", sentence, details)
        self._fading.start()

    def _show(self, icon: str, token: str, sentence: str, details: str, of: QWidget | None = None) -> None:
        self._of = of
        self._icon.set_icon(icon, token)
        self.text.setText(sentence)
        self._details = details
        self.details.setVisible(bool(details))
        self._fading.stop()
        self.place()
        self.show()
        self.raise_()

    def place(self) -> None:
        """Lie at the parent's foot, in its middle, above the status bar."""
        parent, layout = self.parentWidget(), self.layout()
        if parent is not None and layout is not None:
            width = min(BANNER_WIDTH, parent.width() - 2 * theme.HUGE)
            height = max(layout.totalHeightForWidth(width), 48)
            self.setGeometry(
                (parent.width() - width) // 2, parent.height() - height - ABOVE_FOOT, width, height
            )


class Fold(QWidget):
    """A titled part that is folded away until asked for."""

    def __init__(self, title: str) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.SMALL)
        self.toggle = IconButton("caret-right", title, text=title, role="fold")
        self.toggle.setCheckable(True)
        self.body = QWidget()
        self.body.hide()
        layout.addWidget(self.toggle, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self.body)
        self.toggle.toggled.connect(self._unfold)

    def _unfold(self, opened: bool) -> None:
        self.body.setVisible(opened)
        self.toggle.set_icon("caret-down" if opened else "caret-right")


class FlowGrid(QWidget):
    """Cells of equal width, at least `minimum` pixels each, in as many columns as fit and fill every row."""

    def __init__(self, cells: list[QWidget], minimum: int, spacing: int = theme.WIDE) -> None:
        super().__init__()
        self._cells, self._minimum, self._spacing = cells, minimum, spacing
        for cell in cells:
            cell.setParent(self)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def _columns(self) -> int:
        fitting = max(1, (self.width() + self._spacing) // (self._minimum + self._spacing))
        count = len(self._cells)
        return max(columns for columns in range(1, count + 1) if count % columns == 0 and columns <= fitting)

    def _row_height(self) -> int:
        return max(cell.sizeHint().height() for cell in self._cells)

    def sizeHint(self) -> QSize:
        """Ask for the height of all rows."""
        rows = -(-len(self._cells) // self._columns())
        return QSize(self._minimum, rows * self._row_height() + (rows - 1) * self._spacing)

    def arrange(self) -> None:
        """Lay the cells out."""
        columns, height = self._columns(), self._row_height()
        width = (self.width() - (columns - 1) * self._spacing) / columns
        for index, cell in enumerate(self._cells):
            row, column = divmod(index, columns)
            left = round(column * (width + self._spacing))
            right = round(column * (width + self._spacing) + width)
            cell.setGeometry(left, row * (height + self._spacing), right - left, height)
        rows = -(-len(self._cells) // columns)
        self.setFixedHeight(rows * height + (rows - 1) * self._spacing)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay the cells out anew."""
        super().resizeEvent(event)
        self.arrange()
