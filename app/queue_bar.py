"""The controls of the review page's list: its order, sorting anew, and saved views."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSettings, Qt, Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QInputDialog, QMenu, QToolButton, QWidget

from app import theme
from app.criteria import Criteria
from app.saved_views import LONGEST_NAME, Order, SavedViews, View
from app.texts import for_menu
from app.widgets import IconButton, box


class QueueBar(QWidget):
    """A row below the list's filter."""

    order_chosen = Signal(str)
    """An Order that the person chose."""
    sort_wanted = Signal()
    view_chosen = Signal(object)
    """A View to be shown."""

    def __init__(self, settings: QSettings, current: Callable[[], tuple[Criteria, Order]]) -> None:
        """Make it; `current` tells what a view that is saved now would be."""
        super().__init__()
        self.views = SavedViews(settings)
        self._current = current
        self.order = QComboBox()
        self.order.addItem(self.tr("Most doubtful first"), "doubt")
        self.order.addItem(self.tr("As imported"), "imported")
        self.order.setAccessibleName(self.tr("Order of the list"))
        self.order.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.order.activated.connect(lambda _: self.order_chosen.emit(self.order.currentData()))
        self.sort_button = IconButton(
            "arrows-clockwise",
            self.tr("Sort again: what waits first, by its doubt now; until then the order stays"),
            on_click=self.sort_wanted.emit,
        )
        self.views_button = IconButton("bookmark-simple", self.tr("Saved views: filter and order by name"))
        self.menu = QMenu(self)
        self._gone = QMenu(self.tr("Delete"), self.menu)
        self.menu.aboutToShow.connect(self._fill)
        self.views_button.setMenu(self.menu)
        self.views_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        layout = QHBoxLayout(self)
        box(layout, spacing=theme.SMALL)
        layout.addWidget(self.order, 1)
        layout.addWidget(self.sort_button)
        layout.addWidget(self.views_button)

    def show_order(self, order: Order) -> None:
        """Show the order."""
        self.order.setCurrentIndex(self.order.findData(order))
        self.sort_button.setVisible(order == "doubt")

    def _fill(self) -> None:
        self.menu.clear()
        views = self.views.all()
        for view in views:
            action = self.menu.addAction(for_menu(view.name))
            action.triggered.connect(lambda _=False, view=view: self.view_chosen.emit(view))
        if not views:
            self.menu.addAction(self.tr("No view was saved yet")).setEnabled(False)
        self.menu.addSeparator()
        self.menu.addAction(self.tr("Save this view…")).triggered.connect(lambda _=False: self.ask_name())
        if views:
            self._gone.clear()
            self.menu.addMenu(self._gone)
            for view in views:
                action = self._gone.addAction(for_menu(view.name))
                action.triggered.connect(lambda _=False, name=view.name: self.views.delete(name))

    def ask_name(self) -> None:
        """Ask what the view as it is now is called, and keep it; one of that name is replaced."""
        name, fine = QInputDialog.getText(self, self.tr("Save this view"), self.tr("Name of the view:"))
        name = " ".join(name.split())[:LONGEST_NAME]
        if fine and name:
            criteria, order = self._current()
            self.views.save(View(name, criteria, order))
