"""The cache."""


class LRUCache:
    """Keeps at most `capacity` values; makes room by forgetting the one that was used longest ago.

    Keys are hashable. `on_evict(key, value)` is called for every value that has to make room, not for those that
    are replaced or removed.
    """

    def __init__(self, capacity, on_evict=None):
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.capacity = capacity
        self.on_evict = on_evict
        self._entries = []  # [key, value], the one used last at the end

    def __len__(self):
        return len(self._entries)

    def __contains__(self, key):
        return self._position(key) is not None

    def _position(self, key):
        for position, entry in enumerate(self._entries):
            if entry[0] == key:
                return position
        return None

    def get(self, key, default=None):
        """The value of `key`, which is used by that."""
        position = self._position(key)
        if position is None:
            return default
        entry = self._entries.pop(position)
        self._entries.append(entry)
        return entry[1]

    def peek(self, key, default=None):
        """The value of `key`, which is not used by that."""
        position = self._position(key)
        return default if position is None else self._entries[position][1]

    def put(self, key, value):
        """Keeps `value`, and uses `key`."""
        position = self._position(key)
        if position is not None:
            self._entries.pop(position)
        self._entries.append([key, value])
        self._make_room()

    def remove(self, key):
        """Takes `key` out and returns its value. Raises `KeyError` where it is not kept."""
        position = self._position(key)
        if position is None:
            raise KeyError(key)
        return self._entries.pop(position)[1]

    def resize(self, capacity):
        """Changes the capacity, and makes room where it is less than before."""
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.capacity = capacity
        self._make_room()

    def items(self):
        """Pairs of key and value, the one used longest ago first."""
        return [(key, value) for key, value in self._entries]

    def _make_room(self):
        while len(self._entries) > self.capacity:
            key, value = self._entries.pop(0)
            if self.on_evict is not None:
                self.on_evict(key, value)
