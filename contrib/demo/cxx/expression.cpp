#include "expression.hpp"

#include <cctype>
#include <stdexcept>
#include <string>

namespace {

class Parser {
public:
    explicit Parser(std::string_view rest) : rest_(rest) {}

    double whole()
    {
        double value = sum();
        if (!rest_.empty())
            throw std::invalid_argument("unexpected: " + std::string(rest_));
        return value;
    }

private:
    double sum()
    {
        double value = product();
        for (;;) {
            if (take('+'))
                value += product();
            else if (take('-'))
                value -= product();
            else
                return value;
        }
    }

    double product()
    {
        double value = factor();
        for (;;) {
            if (take('*'))
                value *= factor();
            else if (take('/'))
                value /= factor();
            else
                return value;
        }
    }

    double factor()
    {
        if (take('-'))
            return -factor();
        if (take('(')) {
            double value = sum();
            if (!take(')'))
                throw std::invalid_argument("a bracket is not closed");
            return value;
        }
        std::size_t length = 0;
        double value = std::stod(std::string(rest_), &length);
        rest_.remove_prefix(length);
        skip_spaces();
        return value;
    }

    bool take(char wanted)
    {
        skip_spaces();
        if (rest_.empty() || rest_.front() != wanted)
            return false;
        rest_.remove_prefix(1);
        skip_spaces();
        return true;
    }

    void skip_spaces()
    {
        while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_.front())))
            rest_.remove_prefix(1);
    }

    std::string_view rest_;
};

} // namespace

double evaluate(std::string_view expression)
{
    return Parser(expression).whole();
}
