"""Message classes for the generated modules, without what protobuf's own builder brings along.

`google.protobuf.internal.builder` imports the implementation in plain Python, the text format and
half of `inspect`'s relatives, though the messages are made in C: a third of a command's start.
With the C implementation this does the builder's work; with another one the builder itself does.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.internal import api_implementation

if api_implementation.Type() == "upb":
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
    from google.protobuf.message import Message
    from google.protobuf.pyext.cpp_message import GeneratedProtocolMessageType

    def BuildMessageAndEnumDescriptors(file: Any, module: dict[str, Any]) -> None:
        """Names every descriptor in the module: _MESSAGE, _MESSAGE_NESTED."""
        for name, message in file.message_types_by_name.items():
            _name_descriptors(message, "_" + name.upper(), module)

    def _name_descriptors(message: Any, name: str, module: dict[str, Any]) -> None:
        module[name] = message
        for nested_name, nested in message.nested_types_by_name.items():
            _name_descriptors(nested, f"{name}_{nested_name.upper()}", module)
        for enum in message.enum_types:
            module[f"{name}_{enum.name.upper()}"] = enum

    def BuildTopDescriptorsAndMessages(file: Any, module_name: str, module: dict[str, Any]) -> None:
        """Puts enums, their values and the message classes into the module."""
        for name, enum in file.enum_types_by_name.items():
            module["_" + name.upper()] = enum
            module[name] = EnumTypeWrapper(enum)
            module.update((value.name, value.number) for value in enum.values)
        for name, service in file.services_by_name.items():
            module["_" + name.upper()] = service
        for name, message in file.message_types_by_name.items():
            module[name] = _message_class(module_name, message, "")

    def _message_class(module_name: str, message: Any, prefix: str) -> type[Message]:
        inside = f"{prefix}{message.name}."
        members: dict[str, Any] = {
            name: _message_class(module_name, nested, inside)
            for name, nested in message.nested_types_by_name.items()
        }
        members["DESCRIPTOR"] = message
        members["__module__"] = module_name
        members["__qualname__"] = prefix + message.name
        made: type[Message] = GeneratedProtocolMessageType(message.name, (Message,), members)
        return made

else:
    from google.protobuf.internal.builder import (
        BuildMessageAndEnumDescriptors as BuildMessageAndEnumDescriptors,
    )
    from google.protobuf.internal.builder import (
        BuildTopDescriptorsAndMessages as BuildTopDescriptorsAndMessages,
    )
