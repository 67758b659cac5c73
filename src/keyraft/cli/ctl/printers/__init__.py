"""The five output forms: simple, json, fields, table, protobuf."""

from keyraft.cli.ctl.printers.base import Printer


def make(form: str, is_hex: bool) -> Printer | None:
    """The printer for `--write-out form`, None for an unknown form. Only its module is imported."""
    if form == "simple":
        from keyraft.cli.ctl.printers.simple import SimplePrinter

        return SimplePrinter(is_hex)
    if form == "json":
        from keyraft.cli.ctl.printers.json import JSONPrinter

        return JSONPrinter(is_hex)
    if form == "fields":
        from keyraft.cli.ctl.printers.fields import FieldsPrinter

        return FieldsPrinter(is_hex)
    if form == "table":
        from keyraft.cli.ctl.printers.table import TablePrinter

        return TablePrinter(is_hex)
    if form == "protobuf":
        from keyraft.cli.ctl.printers.protobuf import ProtobufPrinter

        return ProtobufPrinter(is_hex)
    return None


__all__ = ["Printer", "make"]
