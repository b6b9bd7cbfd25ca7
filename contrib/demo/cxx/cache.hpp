// The last few answers, so that they need not be found again.
#pragma once

#include <cstddef>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>

template <typename Key, typename Value>
class Cache {
public:
    explicit Cache(std::size_t limit) : limit_(limit) {}

    std::optional<Value> find(const Key &key)
    {
        auto found = places_.find(key);
        if (found == places_.end())
            return std::nullopt;
        entries_.splice(entries_.begin(), entries_, found->second);
        return found->second->second;
    }

    void add(Key key, Value value)
    {
        entries_.emplace_front(key, std::move(value));
        places_[std::move(key)] = entries_.begin();
        if (entries_.size() > limit_) {
            places_.erase(entries_.back().first);
            entries_.pop_back();
        }
    }

private:
    std::size_t limit_;
    std::list<std::pair<Key, Value>> entries_;
    std::unordered_map<Key, typename std::list<std::pair<Key, Value>>::iterator> places_;
};
